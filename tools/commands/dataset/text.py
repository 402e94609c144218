"""`tools/dataset text`: what a dataset holds, or a step of a run was trained on, as text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # numpy would double the time that --help takes
    import numpy as np
    from numpy.typing import NDArray

    from data_tools.datasets.indexed_dataset import IndexedDataset

    Sample = tuple[int, str, NDArray[Any], NDArray[np.bool_] | None]
    """Number, what it is, tokens [n], which of them belong to answers [n]."""

_RANGE = re.compile(r"([0-9]{1,18})(?::([0-9]{1,18}))?")


def text(
    prefix: Annotated[
        Path,
        typer.Argument(
            metavar="PREFIX|RUN",
            help="A dataset's path without .bin or .idx; or, with --step, a run that was launched.",
        ),
    ],
    documents: Annotated[
        str, typer.Option(metavar="FROM:TO", help="Documents by number, from 0, TO not among them; or one number.")
    ] = "",
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Only the first so many tokens of each document, or of each sample of a step."
        ),
    ] = None,
    samples: Annotated[
        str,
        typer.Option(
            metavar="FROM:TO",
            help="In place of documents, samples as a run cuts them from the stream of tokens, in file order.",
        ),
    ] = "",
    sequence_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens of a sample; it has one more, as a target.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="DIR", help="The dataset's tokenizer.")] = None,
    step: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Of a run: the samples that step N was trained on, with their documents."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=0, metavar="R", help="With --step: only what rank R of the launch read.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with the token ids.")] = False,
) -> None:
    """Show documents or samples of a dataset, or of a step of a run, as text.

    Lines of text begin with |, those of answers with >. Answers are every second sequence of a document, where its
    documents have several. A step that was trained more than once is shown as the newest launch trained it.

    Example: tools/dataset text data/mine/text --documents 10:20 --tokens 100 --tokenizer data/mine/tokenizer

    Example: tools/dataset text tr3d-1B3-more-warmup --step 1200 --tokens 50
    """
    if step is not None:
        from tools.commands.dataset.step_text import refuse_options_of_datasets, show_step

        refuse_options_of_datasets(
            documents=documents, samples=samples, sequence_length=sequence_length, tokenizer=tokenizer
        )
        show_step(str(prefix), step, rank, tokens, as_json)
        return
    _refuse_odd_options(documents, samples, sequence_length, tokens, rank)
    _show_dataset(prefix, documents, samples, sequence_length, tokens, tokenizer, as_json)


def _refuse_odd_options(
    documents: str, samples: str, sequence_length: int | None, tokens: int | None, rank: int | None
) -> None:
    """Raises TrainyardError where options of a dataset exclude each other, or one of them would do nothing."""
    from megatron_patches.errors import TrainyardError

    if rank is not None:
        raise TrainyardError("--rank R belongs to --step N of a run; give both, or neither")
    if bool(documents) == bool(samples):
        raise TrainyardError(
            "give --documents FROM:TO, or --samples FROM:TO with --sequence-length N, of a dataset, or "
            "--step N of a run"
        )
    if bool(samples) != (sequence_length is not None):
        raise TrainyardError("--samples FROM:TO and --sequence-length N belong together; give both, or neither")
    if samples and tokens is not None:
        raise TrainyardError("--tokens shortens documents; samples have --sequence-length, leave out --tokens")


def _show_dataset(
    named: Path,
    documents: str,
    samples: str,
    sequence_length: int | None,
    tokens: int | None,
    tokenizer: Path | None,
    as_json: bool,
) -> None:
    from data_tools.datasets.indexed_dataset import IndexedDataset
    from megatron_patches.errors import Missing, TrainyardError
    from tools.commands.dataset.decoded import own_tokenizer, print_sample, sample_record
    from tools.commands.dataset.shards import prefix_of

    prefix = prefix_of(named)
    try:
        dataset = IndexedDataset(prefix)
    except Missing as error:
        raise Missing(
            f"{error}; to see what a run was trained on, add --step N and leave out the other options"
        ) from None
    if dataset.dtype.kind not in "iu":
        raise TrainyardError(f"{dataset.bin_path} holds {dataset.dtype.name}, expected integer token ids")
    if sequence_length is None:
        chosen = _documents(dataset, *_range("--documents", documents, dataset.number_of_documents), tokens)
    else:
        there = (len(dataset.tokens) - 1) // sequence_length
        chosen = _samples(dataset, *_range("--samples", samples, there), sequence_length)
    own = own_tokenizer(prefix, tokenizer)
    for each in chosen:
        if as_json:
            print(json.dumps(sample_record(*each, own)))
        else:
            print_sample(*each, own)


def _range(option: str, text: str, there: int) -> tuple[int, int]:
    """`FROM:TO`, or one number, taken apart; raises TrainyardError where it is none, or not all of it is there."""
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import shortened

    found = _RANGE.fullmatch(text)
    if found is None:
        raise TrainyardError(f"{option} takes FROM:TO or a number, counted from 0, not {shortened(text, 40)}")
    first = int(found[1])
    end = first + 1 if found[2] is None else int(found[2])
    if not first < end <= there:
        held = f"from 0 to {there - 1:,}" if there else "none of them"
        raise TrainyardError(f"{option} {text}: FROM must lie below TO, and the dataset has {held}")
    return first, end


def _documents(dataset: "IndexedDataset", first: int, end: int, most: int | None) -> Iterator["Sample"]:
    from megatron_patches.sizes import counted
    from tools.commands.dataset.decoded import answer_marks

    for number in range(first, end):
        start = dataset.document_token_offset(number)
        stop = start + int(dataset.document_lengths(number, number + 1)[0])
        shown = stop if most is None else min(stop, start + most)
        where = f"document of {counted(stop - start, 'token')}"
        sequences = int(dataset.document_indices[number + 1] - dataset.document_indices[number])
        where += f" in {sequences:,} sequences" if sequences > 1 else ""
        where += f", the first {shown - start:,}" if shown < stop else ""
        yield number, where, dataset.tokens[start:shown], answer_marks(dataset, start, shown)


def _samples(dataset: "IndexedDataset", first: int, end: int, length: int) -> Iterator["Sample"]:
    from tools.commands.dataset.decoded import answer_marks

    for number in range(first, end):
        start = number * length
        stop = start + length + 1
        where = f"sample of the tokens {start:,} to {stop - 1:,}"
        yield number, where, dataset.tokens[start:stop], answer_marks(dataset, start, stop)
