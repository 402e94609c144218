"""What lies where in a checkpoint's safetensors files, read from their headers. Torch-free.

The format: 8 bytes little-endian length of the header, a JSON header (dtype, shape, byte range of each tensor,
`__metadata__` of texts), then the bytes. Our metadata's `slices` says of each tensor which stretch of which box of
which parameter it is.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.dtypes import BYTES_OF_STORED
from megatron_patches.parameters.tensor_slice import TensorSlice

LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


class BadHeader(ValueError):
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
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 0 < length <= min(LONGEST_HEADER, size - 8):
            raise BadHeader(f"a header of {length:,} bytes does not fit into a file of {size:,}")
        text = file.read(length)
    try:
        entries: dict[str, Any] = json.loads(text)
        slices = json.loads(entries.pop("__metadata__")["slices"])
        pieces = [_piece(path.name, entry, slices[key], 8 + length) for key, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadHeader(f"its header cannot be read ({type(error).__name__}: {error})") from None
    return _in_order(pieces, 8 + length, size)


def _piece(file: str, entry: dict[str, Any], cut: dict[str, Any], data: int) -> StoredPiece:
    box = tuple((int(low), int(high)) for low, high in cut["box"])
    begin, end = entry["data_offsets"]
    piece = StoredPiece(
        file=file,
        name=str(cut["name"]),
        kind=str(cut["kind"]),
        slice=TensorSlice(tuple(int(extent) for extent in cut["global_shape"]), box),
        start=int(cut["start"]),
        elements=int(entry["shape"][0]),
        dtype=str(entry["dtype"]),
        offset=data + int(begin),
    )
    if piece.bytes != end - begin or piece.start < 0 or piece.start + piece.elements > piece.slice.elements:
        raise BadHeader(f"{piece.kind} of {piece.name} does not fit its place")
    return piece


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
