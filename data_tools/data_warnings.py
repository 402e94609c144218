"""What people should know of a run's data before it trains, though nothing keeps it from training."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.checksums import token_checksums
from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.opened_sources import OpenedSource, Shard
from data_tools.run_data import RunData
from data_tools.source_parts import SourcePart
from data_tools.splits.document_hashes import open_hashes
from data_tools.splits.order import SplitShard, order_warning
from data_tools.splits.overlap import Overlap, SelectedHashes, overlapping_documents
from data_tools.splits.shared import shared_documents
from data_tools.validation_group import ValidationGroup
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

TOKENS_HASHED_UNASKED = 50_000_000
"""of datasets without hashes: half a second of a launch; of more people ask for the hashes (tools/dataset overlap)"""

Hashes = Callable[[Shard], NDArray[np.uint64] | None]


def data_warnings(data: RunData) -> Iterator[str]:
    """Splits that hold out another kind of text, documents that two sources read, and documents of validation that are
    trained on.
    """
    if not data.groups_are_named:
        for source in data.datasets:
            yield from _order_warnings(source)
    yield from _read_by_two(data)
    yield from _text_on_both_sides(data)
    small = sum(len(shard.dataset.tokens) for shard in data.shards) <= TOKENS_HASHED_UNASKED
    for group, found in overlaps(data, lambda shard: hashes_of(shard, make=small)):
        if found is None:
            yield next(_trained_on(data, group), None) or (
                f"whether documents of validation ({group.name}) are trained on was not looked for: the datasets are "
                "large and have no hashes; run tools/dataset overlap RUN"
            )
        elif found.repeated:
            yield f"{describe_overlap(group, found)}; their loss says how well they were learned by heart"


def _order_warnings(source: OpenedSource) -> Iterator[str]:
    shards = [
        SplitShard(shard.dataset, shard.facts, training, validation)
        for shard, training, validation in zip(
            source.shards, source.training.selections, source.validation.selections, strict=True
        )
        if isinstance(training, DocumentRange) and isinstance(validation, DocumentRange)
    ]
    if warning := order_warning(shards):
        yield warning if len(source.shards) == 1 else f"source {source.name}: {warning}"


def _read_by_two(data: RunData) -> Iterator[str]:
    """Documents that are trained on as those of two sources, or of two copies of a dataset in one: epochs count what
    one source reads.
    """
    read: dict[str, list[tuple[OpenedSource, Shard, Selection]]] = {}
    for each in data.datasets:
        for shard, selection in zip(each.shards, each.training.selections, strict=True):
            read.setdefault(shard.id, []).append((each, shard, selection))
    twice = [
        (source, other, shard, shared)
        for parts in read.values()
        for (source, _, one), (other, shard, two) in combinations(parts, 2)
        if (shared := shared_documents(one, two)) is not None
    ]
    if twice:
        source, other, shard, shared = twice[0]
        by = f"sources {source.name} and {other.name}" if source is not other else f"two datasets of {source.name}"
        yield (
            f"{counted(sum(each.documents for *_, each in twice), 'document')} for training are read as part of {by}"
            f"{' and others' if len(twice) > 1 else ''}, such as document {shared.first} of {printable(shard.prefix)}: "
            "more often than the epochs of each say; give ranges that do not overlap, or leave one of them out"
        )


def _text_on_both_sides(data: RunData) -> Iterator[str]:
    """Files of raw text whose first documents are validated on, and all of whose documents are trained on: named groups
    hold nothing out.
    """
    trained = {place: each.name for each in data.texts for place in each.trained_on} if data.validated_texts else {}
    for text in data.validated_texts:
        if (place := next((each for each in text.validated_on if each in trained), None)) is not None:
            yield (
                f"the first documents of {printable(place)} are validated on as the text {text.name}, and trained on "
                f"as that of source {trained[place]}: groups of data.validation hold nothing out; give them other files"
            )


def _trained_on(data: RunData, group: ValidationGroup) -> Iterator[str]:
    """Documents of a group that are trained on by their place in a dataset, which takes no hashes to see."""
    trained: dict[str, list[Selection]] = {}
    for each in data.datasets:
        for shard, selection in zip(each.shards, each.training.selections, strict=True):
            trained.setdefault(shard.id, []).append(selection)
    for source, part in zip(group.sources, group.parts, strict=True):
        for shard, selection in zip(source.shards, part.selections, strict=True):
            for other in trained.get(shard.id, ()):
                if shared := shared_documents(selection, other):
                    yield (
                        f"{counted(shared.documents, 'document')} of validation group {group.name} are trained on too, "
                        f"from document {shared.first} of {printable(shard.prefix)} on: the ranges of validation and "
                        "training overlap"
                    )
                    return


def overlaps(data: RunData, hashes: Hashes) -> Iterator[tuple[ValidationGroup, Overlap | None]]:
    """What each validation group has in common with training; None where hashes are missing.

    Documents of one source that is split by hash are not compared: none can be on both sides.

    Args:
        hashes: of all documents of a dataset, uint64 [documents]; None where there are none.
    """
    for group in data.groups:
        if not data.datasets:
            continue  # no source of training reads what raw text holds out
        if data.splits_by_hash and not data.groups_are_named and len(data.datasets) == 1:
            continue
        training = _selected([(each, each.training) for each in data.datasets], hashes)
        validation = _selected(list(zip(group.sources, group.parts, strict=True)), hashes)
        both = training is not None and validation is not None
        yield group, overlapping_documents(training or [], validation or []) if both else None


def _selected(parts: Sequence[tuple[OpenedSource, SourcePart]], hashes: Hashes) -> list[SelectedHashes] | None:
    found = []
    for source, part in parts:
        for shard, selection in zip(source.shards, part.selections, strict=True):
            of_shard = hashes(shard)
            if of_shard is None:
                return None
            found.append(SelectedHashes(selection, of_shard))
    return found


def hashes_of(shard: Shard, make: bool) -> NDArray[np.uint64] | None:
    """The hashes that lie beside a dataset, or those that are computed now, in memory.

    Damaged ones count as none: whoever needs them for a split is told.
    """
    documents = shard.dataset.number_of_documents
    try:
        found = open_hashes(shard.prefix, shard.id, documents)
    except TrainyardError:
        found = None
    if found is None and make:
        return token_checksums(shard.dataset.tokens, shard.dataset.document_lengths(0, documents))
    return found


def describe_overlap(group: ValidationGroup, found: Overlap) -> str:
    """How many documents are on both sides, and one of them."""
    texts = f"{found.repeated:,} of {counted(found.documents, 'document')} of validation group {group.name}"
    if not found.examples:
        return f"{texts} are trained on too"
    place, _ = found.examples[0]
    prefixes = [shard.prefix for source in group.sources for shard in source.shards]
    where = f"document {place.document} of {printable(prefixes[place.shard])}"
    return f"{texts} {'is' if found.repeated == 1 else 'are'} trained on too, such as {where}"
