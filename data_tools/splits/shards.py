"""`shards: "1:"`: which of a source's files are read, counted from 0 in the order of their names."""

import re
from collections.abc import Sequence
from typing import TypeVar

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.sizes import counted

_Item = TypeVar("_Item")
_RANGE = re.compile(r"\s*([0-9]{0,9})\s*(:?)\s*([0-9]{0,9})\s*")


def parse_shards(given: object) -> slice:
    """Reads which shards are meant: `1:` all but the first, `:2` the first two, `2:5` three, `0` the first, `:` all.

    Raises:
        TrainyardError: not such a range, or one without a shard in it.
    """
    remedy = "Give the first shard and the one behind the last, counted from 0, such as 1:, :2 or 2:5"
    text = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
    matched = _RANGE.fullmatch(text)
    first, colon, last = matched.groups() if matched else ("", "", "")
    if not (first or colon) or (last and not colon):
        raise TrainyardError(f"shards '{shortened(given)}' is no range of shards. {remedy}")
    start = int(first or 0)
    stop = (int(last) if last else None) if colon else start + 1
    if stop is not None and start >= stop:
        raise TrainyardError(f"shards '{shortened(given)}' has no shard in it. {remedy}")
    return slice(start, stop)


def choose_shards(files: Sequence[_Item], shards: slice) -> list[_Item]:
    """The shards that are meant, of files in the order of their names.

    Raises:
        TrainyardError: the range begins or ends behind the last of them.
    """
    text = f"{shards.start}:{'' if shards.stop is None else shards.stop}"
    if shards.start >= len(files) or (shards.stop or 0) > len(files):
        raise TrainyardError(
            f"shards {text} reaches beyond the {counted(len(files), 'shard')} that there are, 0:{len(files)}; "
            "name shards that there are"
        )
    return list(files[shards])
