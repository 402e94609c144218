"""The header of a safetensors file, read strictly: which tensor lies where. Torch-free.

The format: 8 bytes little-endian length of the header, a JSON header (dtype, shape, byte range of each tensor,
`__metadata__` of texts), then the bytes.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from megatron_patches.errors import Damaged
from megatron_patches.foreign.json_text import kind_of, parse_json
from megatron_patches.foreign.printable import shortened

LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
MOST_DIMENSIONS = 16  # the parameters of models here have at most 5; the limit bounds recursion over dimensions
_METADATA = "__metadata__"


class BadHeader(Damaged):
    """A file's header is not what such a file has; the message says what is wrong with it."""


@dataclass(frozen=True)
class HeaderEntry:
    """One tensor of a file."""

    key: str
    dtype: str
    """as safetensors names it"""
    shape: tuple[int, ...]
    offset: int
    """of its first byte in the file"""
    size: int
    """in bytes"""

    @property
    def told(self) -> str:
        """The tensor in a message."""
        return f"tensor '{shortened(self.key, 100)}'"


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a file holds."""

    entries: tuple[HeaderEntry, ...]
    """in the order of their bytes, which follow each other without gap or overlap to the end of the file"""
    metadata: object
    """of the program that wrote it, as it stands there; None where there is none"""


def read_safetensors_header(path: Path, widths: Mapping[str, int]) -> SafetensorsHeader:
    """The header of a file whose bytes are all accounted for.

    Args:
        widths: types that may stand in it, and the bytes of a number of each.

    Raises:
        BadHeader: the header is cut off, is not JSON, or describes what cannot be there.
        OSError: the file cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadHeader("it is a folder, pipe, socket or device, where a file is expected")
    size = status.st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(LONGEST_HEADER, size - 8):
            raise BadHeader(f"a header of {length:,} bytes does not fit into a file of {size:,}")
        text = file.read(length)
    try:
        described = parse_json(text, "its header", keys_once=True)
    except Damaged as error:
        raise BadHeader(str(error)) from None
    if not isinstance(described, dict):
        raise BadHeader(f"its header is not a JSON object but {kind_of(described)}")
    metadata = described.pop(_METADATA, None)
    entries = [_entry(key, entry, 8 + length, widths) for key, entry in described.items()]
    return SafetensorsHeader(_in_order(entries, 8 + length, size), metadata)


def as_object(value: Any, where: str) -> dict[str, Any]:
    """A value that must be a JSON object.

    Args:
        where: what it is, for the message.
    """
    if not isinstance(value, dict):
        raise BadHeader(f"{where} is missing, or no JSON object")
    return value


def text_in(of: dict[str, Any], key: str, where: str) -> str:
    """A key's value, which must be text that can be printed."""
    value = of.get(key)
    if not isinstance(value, str) or not value.isprintable():
        raise BadHeader(f"{where} has no {key} that is text")
    return value


def whole_numbers(value: Any, where: str, count: int | None = None) -> tuple[int, ...]:
    """A list of whole numbers that are not negative."""
    if not isinstance(value, list) or not all(type(each) is int and each >= 0 for each in value):
        raise BadHeader(f"{where} is not whole numbers of 0 or more")
    if count is not None and len(value) != count:
        raise BadHeader(f"{where} has {len(value)} numbers, expected {count}")
    return tuple(value)


def _entry(key: str, described: Any, data: int, widths: Mapping[str, int]) -> HeaderEntry:
    where = f"tensor '{shortened(key, 100)}'"
    described = as_object(described, where)
    shape = whole_numbers(described.get("shape"), f"shape of {where}")
    begin, end = whole_numbers(described.get("data_offsets"), f"data_offsets of {where}", count=2)
    dtype = text_in(described, "dtype", where)
    if dtype not in widths:
        raise BadHeader(f"{where} is of type '{shortened(dtype, 40)}', expected {', '.join(widths)}")
    if len(shape) > MOST_DIMENSIONS or prod(shape) * widths[dtype] != end - begin:
        raise BadHeader(f"{where} does not have as many bytes as its shape and type say")
    return HeaderEntry(key, dtype, shape, data + begin, end - begin)


def _in_order(entries: Iterable[HeaderEntry], position: int, size: int) -> tuple[HeaderEntry, ...]:
    """By offset; the bytes after the header are theirs without gap or overlap."""
    ordered = sorted(entries, key=lambda entry: (entry.offset, entry.size))
    for entry in ordered:
        if entry.offset != position:
            raise BadHeader(f"{entry.told} does not begin where the tensor before it ends")
        position += entry.size
    if position != size:
        raise BadHeader(f"its tensors end at byte {position:,}, the file at {size:,}")
    return tuple(ordered)
