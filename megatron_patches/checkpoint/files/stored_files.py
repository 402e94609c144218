"""What lies where in a checkpoint's safetensors files, read from their headers. Torch-free.

The format: 8 bytes little-endian length of the header, a JSON header (dtype, shape, byte range of each tensor,
`__metadata__` of texts), then the bytes. Our metadata's `slices` says of each tensor which stretch of which box of
which parameter it is.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.dtypes import BYTES_OF_STORED
from megatron_patches.errors import Damaged
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import shortened
from megatron_patches.parameters.tensor_slice import TensorSlice

LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
MOST_DIMENSIONS = 16  # the parameters of models here have at most 5; the limit bounds recursion over dimensions


class BadHeader(Damaged):
    """A file's header is not what a checkpoint's file has; the message says what is wrong with it."""


@dataclass(frozen=True)
class StoredPiece:
    """A stretch of one tensor of the training state in one file."""

    file: str
    """name within the checkpoint's folder"""
    name: str
    """canonical name of the parameter"""
    kind: str
    """weight, master or a moment: `StatePiece.kind`"""
    slice: TensorSlice
    start: int
    """first element within the box that `slice` describes, row-major"""
    elements: int
    dtype: str
    """as safetensors names it: F32, BF16, F16"""
    offset: int
    """of its first byte in the file"""

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self.elements * BYTES_OF_STORED[self.dtype]


def read_header(path: Path) -> list[StoredPiece]:
    """The pieces of a file, in the order of their bytes.

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
        entries = parse_object(text, "its header")
        metadata = _object(entries.pop("__metadata__", None), "its __metadata__")
        slices = parse_object(_text(metadata, "slices", "its __metadata__"), "slices of its header")
    except BadHeader:
        raise
    except Damaged as error:
        raise BadHeader(str(error)) from None
    pieces = [_piece(path.name, key, entry, slices.get(key), 8 + length) for key, entry in entries.items()]
    return _in_order(pieces, 8 + length, size)


def _piece(file: str, key: str, entry: Any, cut: Any, data: int) -> StoredPiece:
    where = f"tensor '{shortened(key, 100)}'"
    entry, cut = _object(entry, where), _object(cut, f"the slice of {where}")
    (elements,) = _numbers(entry.get("shape"), f"shape of {where}", count=1)
    begin, end = _numbers(entry.get("data_offsets"), f"data_offsets of {where}", count=2)
    dtype = _text(entry, "dtype", where)
    if dtype not in BYTES_OF_STORED:
        raise BadHeader(f"{where} is of type '{shortened(dtype, 40)}', expected {', '.join(BYTES_OF_STORED)}")
    (start,) = _numbers([cut.get("start")], f"start of {where}", count=1)
    piece = StoredPiece(
        file=file,
        name=_text(cut, "name", where),
        kind=_text(cut, "kind", where),
        slice=_slice(cut, where),
        start=start,
        elements=elements,
        dtype=dtype,
        offset=data + begin,
    )
    if piece.bytes != end - begin or piece.start + piece.elements > piece.slice.elements:
        raise BadHeader(f"{piece.kind} of {piece.name} does not fit its place")
    return piece


def _slice(cut: dict[str, Any], where: str) -> TensorSlice:
    shape = _numbers(cut.get("global_shape"), f"global_shape of {where}")
    given = cut.get("box")
    if not isinstance(given, list) or not 1 <= len(shape) == len(given) <= MOST_DIMENSIONS:
        raise BadHeader(f"box and global_shape of {where} are no lists of as many dimensions, 1 to {MOST_DIMENSIONS}")
    box = []
    for each, extent in zip(given, shape, strict=True):
        low, high = _numbers(each, f"box of {where}", count=2)
        if not low <= high <= extent:
            raise BadHeader(f"box of {where} reaches beyond its global_shape")
        box.append((low, high))
    return TensorSlice(shape, tuple(box))


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadHeader(f"{where} is missing, or no JSON object")
    return value


def _text(of: dict[str, Any], key: str, where: str) -> str:
    value = of.get(key)
    if not isinstance(value, str) or not value.isprintable():
        raise BadHeader(f"{where} has no {key} that is text")
    return value


def _numbers(value: Any, where: str, count: int | None = None) -> tuple[int, ...]:
    """Whole numbers that are not negative."""
    if not isinstance(value, list) or not all(type(each) is int and each >= 0 for each in value):
        raise BadHeader(f"{where} is not whole numbers of 0 or more")
    if count is not None and len(value) != count:
        raise BadHeader(f"{where} has {len(value)} numbers, expected {count}")
    return tuple(value)


def _in_order(pieces: Iterable[StoredPiece], position: int, size: int) -> list[StoredPiece]:
    """By offset; the bytes behind the header are theirs without gap or overlap."""
    ordered = sorted(pieces, key=lambda piece: piece.offset)
    for piece in ordered:
        if piece.offset != position:
            raise BadHeader(f"{piece.kind} of {piece.name} does not begin where the tensor before it ends")
        position += piece.bytes
    if position != size:
        raise BadHeader(f"its tensors end at byte {position:,}, the file at {size:,}")
    return ordered
