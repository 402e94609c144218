"""The `.bin`/`.idx` pair on disk (MMIDIDX): names, header, and what can be said of the files without reading them.

`.idx`, little-endian: magic (9 bytes), version 1 (uint64), dtype code (uint8), number of sequences n (uint64), number
of document indices d (uint64); then int32 lengths[n] in tokens, int64 pointers[n] in bytes, int64 document_indices[d]:
document k is the sequences [document_indices[k], document_indices[k + 1]). `.bin`: the tokens of all sequences.
Source: megatron-core 0.16.1, megatron/core/datasets/indexed_dataset.py.
"""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megatron_patches.errors import TrainyardError

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


def bin_path(prefix: Path) -> Path:
    """The file of tokens. A prefix may contain dots, so this appends."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """The file of lengths, pointers and document boundaries."""
    return prefix.with_name(prefix.name + ".idx")


class Header(NamedTuple):
    """The first 34 bytes of an `.idx`."""

    dtype: np.dtype[Any]
    sequences: int
    document_indices: int
    """Documents plus one."""


def check_files_exist(tokens: Path, index: Path) -> None:
    """Raises TrainyardError if the `.bin` or the `.idx` is missing or empty."""
    for path, other in ((tokens, index), (index, tokens)):
        if not path.is_file():
            found = f"{other.name} is there alone" if other.is_file() else "neither it nor its partner is there"
            raise TrainyardError(
                f"{path} does not exist ({found}). Give the prefix of a dataset without .bin or .idx, or make one "
                f"with tools/preprocess FILES --output {path.with_suffix('')} --tokenizer DIR"
            )
    for path in (tokens, index):
        if path.stat().st_size == 0:
            raise TrainyardError(f"{path} is empty. Copy it again, or run tools/preprocess again")


def read_header(path: Path) -> Header:
    """Reads the header of an `.idx` and compares the file's size with its counts.

    Raises:
        TrainyardError: not an index of this version, an unknown dtype, a size that the counts do not give, or no
            sequences at all.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(HEADER.size)
    if raw[: len(MAGIC)] != MAGIC:
        raise TrainyardError(
            f"{path} starts with {raw[: len(MAGIC)]!r}, expected {MAGIC!r}: it is not a Megatron index. "
            "Make the dataset with tools/preprocess"
        )
    if len(raw) < HEADER.size:
        raise TrainyardError(f"{path} has {size} bytes, expected a header of {HEADER.size}. {MAKE_AGAIN}")
    _, version, code, sequences, document_indices = HEADER.unpack(raw)
    if version != VERSION:
        raise TrainyardError(f"{path} has version {version}, expected {VERSION}. Make the dataset again")
    if code not in DTYPES:
        raise TrainyardError(
            f"{path} has dtype code {code}, expected one of {', '.join(f'{c} ({d})' for c, d in DTYPES.items())}. "
            f"{MAKE_AGAIN}"
        )
    expected = HEADER.size + 12 * sequences + 8 * document_indices
    if size != expected:
        raise TrainyardError(
            f"{path} has {size:,} bytes, expected {expected:,} from its own counts ({sequences:,} sequences, "
            f"{document_indices:,} document indices). {MAKE_AGAIN}"
        )
    if sequences == 0 or document_indices == 0:
        raise TrainyardError(f"{path} holds no sequences. Make the dataset from a source with text")
    return Header(DTYPES[code], sequences, document_indices)
