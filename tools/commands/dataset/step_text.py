"""What a step of a run was trained on, as text."""

import json
from collections.abc import Iterator

import numpy as np

from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted
from tools.commands.dataset.decoded import print_sample, sample_record
from tools.run_files.checkpoint_reference import find_run_directory
from tools.run_views.read_step import ReadSample, ReadStep
from tools.terminal import remark, tell

_DOCUMENTS_TOLD = 8


def show_step(run: str, step: int, rank: int | None, tokens: int | None, as_json: bool) -> None:
    """Print the samples of a step.

    Args:
        rank: only what this rank of the launch read.
        tokens: only the first so many of each sample.

    Raises:
        TrainyardError: the step is not on record, or its data is missing or damaged.
    """
    found = ReadStep(find_run_directory(run), step)
    # to decode is all that is needed: what keeps control tokens out of encoded text would take as long to load again
    tokenizer = load_tokenizer(found.tokenizer, allow_invalid=True, parse_special=True)
    if not found.is_present:
        remark(f"step {step:,} of launch {found.launch.launch}, which was rolled back since")
    if not as_json:
        size = counted(found.recorded.size, "sample")
        tell(f"step {step:,}, trained by launch {found.launch.launch}: {size} after {found.recorded.first:,} others")
    for sample in found.samples(rank):
        content = sample.content["tokens"]
        shown = np.arange(len(content)) < (len(content) if tokens is None else tokens)
        if (segments := sample.content.get("segments")) is not None:
            shown &= segments >= 0
        answers = sample.content.get("answers")
        marks = None if answers is None else answers[shown] == 1
        if as_json:
            record = sample_record(sample.number, _where(sample), content[shown], marks, tokenizer)
            print(json.dumps({"step": step, "launch": found.launch.launch, **_facts(sample), **record}))
        else:
            print_sample(sample.number, _where(sample), content[shown], marks, tokenizer)


def _facts(sample: ReadSample) -> dict[str, object]:
    return {
        "place": sample.place,
        "source": sample.source,
        "dataset": sample.dataset,
        "documents": [list(each) for each in sample.documents],
        "data_rank": sample.data_rank,
        "micro_batch": sample.micro_batch,
    }


def _where(sample: ReadSample) -> str:
    """Everything that is known of a sample, in a line behind its number."""
    text = f"sample of source {sample.source} at place {sample.place:,}, {_which(sample)}"
    if sample.data_rank is None:
        return text
    return f"{text} (data rank {sample.data_rank}, micro-batch {sample.micro_batch})"


def _which(sample: ReadSample) -> str:
    """What it is made of."""
    told = list(_documents(sample))
    if not told:
        return f"of the text of {sample.dataset}"
    more = " ..." if len(told) > _DOCUMENTS_TOLD else ""
    which = "document" if len(told) == 1 and " " not in told[0] else "documents"
    return f"{which} {', '.join(told[:_DOCUMENTS_TOLD])}{more} of {sample.dataset}"


def _documents(sample: ReadSample) -> Iterator[str]:
    for first, last in sample.documents:
        yield f"{first:,}" if first == last else f"{first:,} to {last:,}"


def refuse_options_of_datasets(**given: object) -> None:
    """Raises TrainyardError where an option was given that is a dataset's alone."""
    for option, value in given.items():
        if value not in ("", None):
            name = option.replace("_", "-")
            raise TrainyardError(
                f"--{name} is for a dataset, and --step for a run, which names its datasets and tokenizer itself; "
                "leave out one of them"
            )
