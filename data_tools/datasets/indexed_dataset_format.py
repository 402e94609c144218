"""The `.bin`/`.idx` pair on disk (MMIDIDX): names, header, and what can be said of the files without reading them.

`.idx`, little-endian: magic (9 bytes), version 1 (uint64), dtype code (uint8), number of sequences n (uint64), number
of document indices d (uint64); then int32 lengths[n] in tokens, int64 pointers[n] in bytes, int64 document_indices[d]:
document k is the sequences [document_indices[k], document_indices[k + 1]). `.bin`: the tokens of all sequences.
Source: megatron-core 0.16.1, megatron/core/datasets/indexed_dataset.py.
"""

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import is_file
from megatron_patches.foreign.printable import printable

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")

# Codes 6 and 7 as current megatron-core has them; in older forks 7 (and 6) are both 8-byte floats.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}

MAKE_AGAIN = "The index is damaged: copy both files again, or run tools/preprocess again"


def appended(prefix: Path, ending: str) -> Path:
    """What is called as a dataset is, and more behind it. A prefix may contain dots, so this appends.

    Raises:
        TrainyardError: the prefix has no name of its own, as `.` and an empty text have none.
    """
    if prefix.name in ("", ".."):
        raise TrainyardError(
            f"'{prefix}' is a folder; a dataset's prefix is the path of its .bin without the ending, such as data/web"
        )
    return prefix.with_name(prefix.name + ending)


def bin_path(prefix: Path) -> Path:
    """The file of tokens."""
    return appended(prefix, ".bin")


def idx_path(prefix: Path) -> Path:
    """The file of lengths, pointers and document boundaries."""
    return appended(prefix, ".idx")


class Header(NamedTuple):
    """The first 34 bytes of an `.idx`."""

    dtype: np.dtype[Any]
    sequences: int
    document_indices: int
    """Documents plus one."""

    @property
    def bytes(self) -> int:
        """Size of the whole `.idx`."""
        return HEADER.size + 12 * self.sequences + 8 * self.document_indices


def check_files_exist(tokens: Path, index: Path) -> None:
    """Raises TrainyardError if the `.bin` or the `.idx` is missing or empty."""
    for path, other in ((tokens, index), (index, tokens)):
        if not is_file(path):
            partner = printable(other.name)
            found = f"though {partner} does" if is_file(other) else f"nor does {partner}"
            raise Missing(
                f"{printable(path)} does not exist, {found}. Give the prefix of a dataset without .bin or .idx, or "
                f"make one with tools/preprocess FILES --output {printable(path.with_suffix(''))} --tokenizer DIR"
            )
    for path in (tokens, index):
        if path.stat().st_size == 0:
            raise Damaged(f"{path} is empty. Copy it again, or run tools/preprocess again")


def read_header(path: Path) -> Header:
    """Reads the header of an `.idx` and compares the file's size with its counts.

    Raises:
        TrainyardError: not an index of this version, an unknown dtype, a size that the counts do not give, or no
            sequences at all.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _unpack(path, file.read(HEADER.size))
    if size != header.bytes:
        raise Damaged(
            f"{path} has {size:,} bytes, expected {header.bytes:,} from its own counts ({header.sequences:,} "
            f"sequences, {header.document_indices:,} document indices). {MAKE_AGAIN}"
        )
    if header.sequences == 0 or header.document_indices == 0:
        raise TrainyardError(f"{path} holds no sequences. Make the dataset from a source with text")
    return header


def _unpack(path: Path, raw: bytes) -> Header:
    if raw[: len(MAGIC)] != MAGIC:
        raise TrainyardError(
            f"{path} starts with {raw[: len(MAGIC)]!r}, expected {MAGIC!r}: it is not a Megatron index. "
            "Make the dataset with tools/preprocess"
        )
    if len(raw) < HEADER.size:
        raise Damaged(f"{path} has {len(raw)} bytes, expected a header of {HEADER.size}. {MAKE_AGAIN}")
    _, version, code, sequences, document_indices = HEADER.unpack(raw)
    if version != VERSION:
        raise TrainyardError(f"{path} has version {version}, expected {VERSION}. Make the dataset again")
    if code not in DTYPES:
        raise TrainyardError(
            f"{path} has dtype code {code}, expected one of {', '.join(f'{c} ({d})' for c, d in DTYPES.items())}. "
            f"{MAKE_AGAIN}"
        )
    return Header(DTYPES[code], sequences, document_indices)


def shortened_files(prefix: Path) -> list[str]:
    """One sentence for each file of a dataset that is missing, or has fewer bytes than the index says.

    A process that reads such a file by memory map dies of SIGBUS without a word, so this reads without a map: it may
    be called of a dataset that changed while it was in use, and costs two small reads.
    """
    index, tokens = idx_path(prefix), bin_path(prefix)
    try:
        with index.open("rb") as file:
            header = _unpack(index, file.read(HEADER.size))
            found = os.fstat(file.fileno()).st_size
            if found < header.bytes:
                return [_shortened(index, found, header.bytes)]
            expected = _bin_bytes(file.fileno(), header)
        found = tokens.stat().st_size
        return [_shortened(tokens, found, expected)] if found < expected else []
    except OSError as error:
        return [f"{printable(error.filename or prefix)} cannot be read ({error.strerror}); copy the dataset again"]
    except TrainyardError as error:
        return [str(error)]


def _shortened(path: Path, found: int, expected: int) -> str:
    return (
        f"{printable(path)} was shortened: it has {found:,} of the {expected:,} bytes that its index says. Copy both "
        "files again from the same place, or run tools/preprocess again"
    )


def _bin_bytes(index: int, header: Header) -> int:
    """Bytes that the `.bin` of an open, whole `.idx` has: where its last sequence ends."""
    if not header.sequences:
        return 0
    length = os.pread(index, 4, HEADER.size + 4 * (header.sequences - 1))
    pointer = os.pread(index, 8, HEADER.size + 4 * header.sequences + 8 * (header.sequences - 1))
    tokens = int.from_bytes(length, "little", signed=True)
    return int.from_bytes(pointer, "little", signed=True) + tokens * header.dtype.itemsize
