"""One dataset cut into several, between documents and in constant memory; merged they are the dataset again."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import appended
from data_tools.datasets.lengths import length_blocks
from data_tools.datasets.manifest import AnswerFacts, DatasetFacts, SettingsFacts, SourceFacts, manifest_path
from data_tools.datasets.regrouping.stretches import Stretch, StretchWriter, check_output, stretch_of
from data_tools.datasets.regrouping.verified_input import VerifiedInput, open_input
from megatron_patches.artefacts.manifest import FileRecord, Manifest, build_manifest, content_id
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import storable
from megatron_patches.sizes import counted

MOST_SHARDS = 100_000
"""as many as five digits name"""
SEQUENCES_READ_AT_ONCE = 1 << 20


class Cut(NamedTuple):
    """How a dataset is cut."""

    unit: str
    """`tokens` or `documents` of a shard, or `shards` in all."""
    number: int


class Shard(NamedTuple):
    """One finished part."""

    prefix: Path
    manifest: Manifest
    facts: DatasetFacts


def split_dataset(
    prefix: Path,
    output: Path,
    cut: Cut,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Shard]:
    """Writes OUTPUT-00000 and so on, each a dataset of whole documents with a manifest.

    Args:
        on_progress: called with the bytes of tokens that were read, and those of the dataset.

    Raises:
        TrainyardError: the dataset is missing, damaged, invalid or without a manifest; the cut cannot be made (more
            shards than documents, a shard without tokens); an output is the input or exists. No shard is there then.
    """
    opened = open_input(prefix)
    dataset = IndexedDataset(prefix)
    parts = [stretch_of(dataset, first, last) for first, last in pairwise(boundaries(dataset, cut))]
    del dataset  # and with it the pages of its index
    for number, part in enumerate(parts):
        if part.number_of_tokens == 0:
            raise TrainyardError(
                f"documents {part.documents[0]:,} to {part.documents[1] - 1:,} of {prefix}, which would be shard "
                f"{number}, hold no tokens, and there is no dataset without tokens; ask for fewer or larger shards"
            )
    prefixes = [shard_prefix(output, number) for number in range(len(parts))]
    _check_outputs(output, prefix, prefixes, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    total = opened.whole.number_of_tokens * opened.whole.dtype.itemsize
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        on_progress(done, total)

    command = _command(prefix, output, cut)
    with ExitStack() as stack:
        writers = []
        for path, part in zip(prefixes, parts, strict=True):
            writer = StretchWriter(path, part.dtype)
            stack.callback(writer.discard)  # after publish there is nothing left to remove
            writer.add(part, opened.digest, count)
            writer.finish()
            writers.append(writer)
        opened.check_tokens()
        facts = [_facts(opened, writer, part) for writer, part in zip(writers, parts, strict=True)]
        parents = [opened.id, opened.facts.tokenizer.id]
        first = build_manifest("dataset", writers[0].files(), facts[0].model_dump(), parents, command)
        shards = [
            Shard(writer.prefix, _like(first, writer.files(), each), each)
            for writer, each in zip(writers, facts, strict=True)
        ]
        _publish(writers, shards)
    return shards


def _like(manifest: Manifest, files: list[FileRecord], facts: DatasetFacts) -> Manifest:
    """The manifest of another shard of the same split; git, which takes longer than a shard, is asked once for all."""
    stated = facts.model_dump()
    identity = content_id(manifest.kind, manifest.parents, files, stated)
    return manifest.model_copy(update={"id": identity, "files": files, "facts": stated})


def _publish(writers: Sequence[StretchWriter], shards: Sequence[Shard]) -> None:
    """All shards or none; those that are replaced are gone first, so that a kill leaves no mixture of two splits."""
    for shard in shards:
        manifest_path(shard.prefix).unlink(missing_ok=True)
    try:
        for writer, shard in zip(writers, shards, strict=True):
            writer.publish(shard.manifest)
    except BaseException:
        for writer in writers:
            writer.withdraw()
        raise


def shard_prefix(output: Path, number: int) -> Path:
    """OUTPUT-00000 and so on."""
    return appended(output, f"-{number:05}")


def _check_outputs(output: Path, prefix: Path, prefixes: list[Path], overwrite: bool) -> None:
    for each in prefixes:
        check_output(each, [prefix], overwrite)
    beyond = manifest_path(shard_prefix(output, len(prefixes)))
    if beyond.exists():
        raise TrainyardError(
            f"{beyond} is there of an earlier split into more shards; remove it and those after it, or choose another "
            "name: OUTPUT-* would mean shards of both"
        )


def boundaries(dataset: IndexedDataset, cut: Cut) -> list[int]:
    """Documents at which shards begin, and at the end the number of documents; ascending, none twice.

    Shards of N tokens are cut at the ends of documents that are nearest to N, 2 N, ...: so they have N on average,
    whatever the documents, and a document of more than N is a shard by itself. A number of shards is cut the same way.

    Raises:
        TrainyardError: more shards than documents, or than names.
    """
    unit, number = cut
    documents, tokens = dataset.number_of_documents, len(dataset.tokens)
    if number < 1:
        raise TrainyardError(f"{number} {unit} is no cut; give 1 or more")
    if unit == "shards" and number > documents:
        raise TrainyardError(
            f"{dataset.prefix} has {counted(documents, 'document')}, which make no {number:,} shards of whole "
            f"documents; ask for {documents:,} or fewer"
        )
    size = {"shards": number, "documents": -(-documents // number), "tokens": -(-tokens // number)}[unit]
    if size > MOST_SHARDS:
        raise TrainyardError(f"that makes {size:,} shards, and five digits name {MOST_SHARDS:,}; ask for fewer")
    if unit == "documents":
        return [*range(0, documents, number), documents]
    targets = ((tokens * part // number if unit == "shards" else number * part) for part in range(1, size))
    inner = _exactly(number, targets, dataset) if unit == "shards" else _distinct(targets, dataset)
    return [0, *inner, documents]


def _distinct(targets: Iterable[int], dataset: IndexedDataset) -> Iterator[int]:
    """Cuts nearest to each target, without those that would leave nothing before or behind them."""
    before = 0
    for target in targets:
        document = _nearest(dataset, target)
        offset = dataset.document_token_offset(document)
        if before < offset < len(dataset.tokens):
            yield document
            before = offset


def _exactly(shards: int, targets: Iterable[int], dataset: IndexedDataset) -> Iterator[int]:
    """A cut for each target, with at least one document on either side of each."""
    before = 0
    for number, target in enumerate(targets, 1):
        most = dataset.number_of_documents - (shards - number)
        before = min(max(_nearest(dataset, target), before + 1), most)
        yield before


def _nearest(dataset: IndexedDataset, target: int) -> int:
    """The document whose start is nearest to this many tokens, the first of several."""
    low, high = 0, dataset.number_of_documents
    while low < high:
        middle = (low + high) // 2
        if dataset.document_token_offset(middle) < target:
            low = middle + 1
        else:
            high = middle
    if low and target - dataset.document_token_offset(low - 1) <= dataset.document_token_offset(low) - target:
        return low - 1
    return low


def _facts(opened: VerifiedInput, writer: StretchWriter, part: Stretch) -> DatasetFacts:
    settings = opened.facts.settings
    # a text that gave no token has none; before version 0.7 it had the token that ends it, and no other was as short
    most = 1 if settings is not None and settings.append_eod and opened.facts.answers is None else 0
    return opened.facts.model_copy(
        update={
            "documents": writer.documents,
            "sequences": writer.sequences,
            "tokens": writer.tokens,
            "largest_token_id": writer.largest_token,
            "empty_documents": sum(
                int(np.count_nonzero(block <= most)) for block in length_blocks(part.prefix, *part.documents)
            ),
            "sources": _sources_of(opened.facts, *part.documents),
            "number_not_read": 0,
            "not_read": [],
            "settings": None if settings is None else _settings_of_part(settings),
            "answers": None if opened.facts.answers is None else _answers(part),
            "injection": None,
        }
    )


def _settings_of_part(settings: SettingsFacts) -> SettingsFacts:
    """Without what is true of the whole dataset alone."""
    made_up = 0 if settings.synthetic_documents == 0 else None
    return settings.model_copy(
        update={"tokens_asked": None, "synthetic_documents": made_up, "shard_tokens": None, "shard": None}
    )


def _answers(part: Stretch) -> AnswerFacts:
    """Counts the answers; each piece opens the dataset again, as in `length_blocks`."""
    first, last = part.sequences
    counts = [
        IndexedDataset(part.prefix).count_answers(start, min(start + SEQUENCES_READ_AT_ONCE, last))
        for start in range(first, last, SEQUENCES_READ_AT_ONCE)
    ]
    return AnswerFacts(answers=sum(each.answers for each in counts), tokens=sum(each.tokens for each in counts))


def _sources_of(facts: DatasetFacts, first: int, last: int) -> list[SourceFacts]:
    """The sources of the documents [first, last); none where the manifest lacks some, or documents were shuffled."""
    shuffled = facts.settings is not None and facts.settings.shuffle_seed is not None
    if shuffled or sum(source.documents for source in facts.sources) != facts.documents:
        return []
    found = []
    start = 0
    for source in facts.sources:
        inside = min(last, start + source.documents) - max(first, start)
        if inside > 0:
            found.append(source.model_copy(update={"documents": inside}))
        start += source.documents
    return found


def _command(prefix: Path, output: Path, cut: Cut) -> str:
    return storable(shlex.join(["tools/dataset", "split", prefix.name, output.name, f"--{cut.unit}", str(cut.number)]))
