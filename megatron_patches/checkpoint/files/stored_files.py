"""What lies where in a checkpoint's safetensors files, read from their headers. Torch-free.

The metadata's `slices` says of each tensor which stretch of which box of which parameter it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.checkpoint.files.safetensors_header import (
    MOST_DIMENSIONS,
    BadHeader,
    HeaderEntry,
    as_object,
    read_safetensors_header,
    text_in,
    whole_numbers,
)
from megatron_patches.dtypes import BYTES_OF_STORED
from megatron_patches.errors import Damaged
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.parameters.tensor_slice import TensorSlice


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
    header = read_safetensors_header(path, BYTES_OF_STORED)
    metadata = as_object(header.metadata, "its __metadata__")
    try:
        slices = parse_object(text_in(metadata, "slices", "its __metadata__"), "slices of its header")
    except BadHeader:
        raise
    except Damaged as error:
        raise BadHeader(str(error)) from None
    return [_piece(path.name, entry, slices.get(entry.key)) for entry in header.entries]


def _piece(file: str, entry: HeaderEntry, cut: Any) -> StoredPiece:
    cut = as_object(cut, f"the slice of {entry.told}")
    (elements,) = whole_numbers(list(entry.shape), f"shape of {entry.told}", count=1)
    (start,) = whole_numbers([cut.get("start")], f"start of {entry.told}", count=1)
    piece = StoredPiece(
        file=file,
        name=text_in(cut, "name", entry.told),
        kind=text_in(cut, "kind", entry.told),
        slice=_slice(cut, entry.told),
        start=start,
        elements=elements,
        dtype=entry.dtype,
        offset=entry.offset,
    )
    if piece.start + piece.elements > piece.slice.elements:
        raise BadHeader(f"{piece.kind} of {piece.name} does not fit its place")
    return piece


def _slice(cut: dict[str, Any], where: str) -> TensorSlice:
    shape = whole_numbers(cut.get("global_shape"), f"global_shape of {where}")
    given = cut.get("box")
    if not isinstance(given, list) or not 1 <= len(shape) == len(given) <= MOST_DIMENSIONS:
        raise BadHeader(f"box and global_shape of {where} are no lists of as many dimensions, 1 to {MOST_DIMENSIONS}")
    box = []
    for each, extent in zip(given, shape, strict=True):
        low, high = whole_numbers(each, f"box of {where}", count=2)
        if not low <= high <= extent:
            raise BadHeader(f"box of {where} reaches beyond its global_shape")
        box.append((low, high))
    return TensorSlice(shape, tuple(box))
