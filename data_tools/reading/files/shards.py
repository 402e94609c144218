"""Shares of the parts for several jobs: in order they hold what the parts hold, each document once."""

from collections.abc import Iterator, Sequence

from data_tools.reading.block import Part
from data_tools.reading.files.file_part import FilePart
from megatron_patches.errors import TrainyardError


def shard_of(parts: Sequence[Part], number: int, shards: int) -> list[Part]:
    """One of several shards of about equal bytes.

    Lines of a file that is not compressed are cut anywhere, parquet between row groups; everything else is whole in the
    shard in which it begins.

    Args:
        number: of the shard, from 0.

    Raises:
        TrainyardError: there is no such shard, or it is empty; names how many shards there can be.
    """
    if not 0 <= number < shards:
        raise TrainyardError(f"shard {number} of {shards}: shards are numbered from 0 to one less than their number")
    if found := list(_shard(parts, number, shards)):
        return found
    possible = sum(any(_shard(parts, each, shards)) for each in range(shards))
    while not all(any(_shard(parts, each, possible)) for each in range(possible)):
        possible -= 1
    raise TrainyardError(
        f"shard {number} of {shards} is empty: the sources can be divided into {possible} (only lines that are not "
        f"compressed and row groups of parquet are divided within a file); ask for {possible} shards"
    )


def _shard(parts: Sequence[Part], number: int, shards: int) -> Iterator[Part]:
    # where sizes are not known, all parts count the same
    sizes = [part.size for part in parts] if any(part.size for part in parts) else [1] * len(parts)
    total, before = sum(sizes), 0
    for part, size in zip(parts, sizes, strict=True):
        begin, end = (total * each // shards - before for each in (number, number + 1))
        if begin < size and end > 0 and not (begin <= 0 and size <= end):
            yield from _cut(part, begin, min(end, size))
        elif begin <= 0 < end or (before == total and number == shards - 1):  # a part of no bytes may come last
            yield part
        before += size


def _cut(part: Part, begin: int, end: int) -> Iterator[Part]:
    """What of a part belongs to these of its bytes, which are not all."""
    places = part.cut_places([max(0, begin), end]) if isinstance(part, FilePart) else None
    if places is None:
        if begin <= 0:
            yield part
    elif places[0] < places[1]:
        assert isinstance(part, FilePart)
        yield part if list(places) == [0, part.size] else part.cut(places[0], places[1])
