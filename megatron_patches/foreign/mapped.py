"""Files that are read by memory map, however many a process has of them."""

import errno
import mmap
import os
import resource
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable

SPARE = 128
"""open files that are left to everything else in the process"""
_MANY = 1 << 20
"""as many as are asked for where the system sets no limit"""
_MERGE = "or join small datasets (tools/dataset merge)"


def mapped(file: BinaryIO) -> NDArray[Any]:
    """The bytes of an open file, mapped and read-only, uint8 [size]; parts of it are views, at no further cost.

    A map keeps a file open of its own, and a blend may have thousands of them: before a process may open no more, its
    limit becomes all that the system grants it.

    Raises:
        Refused: the system grants no more open files, or no more maps.
    """
    _check_room(file)
    if os.fstat(file.fileno()).st_size == 0:
        return np.empty(0, dtype=np.uint8)  # nothing cannot be mapped
    try:
        return np.asarray(np.memmap(file, np.uint8, mode="r"))
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise Refused(
            f"{printable(file.name)} cannot be mapped: this process has as many maps as it may. Raise that limit "
            f"(sysctl vm.max_map_count), {_MERGE}"
        ) from None


def map_file(path: Path) -> NDArray[Any]:
    """As `mapped`, of a file that is opened for it.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    with path.open("rb") as file:
        return mapped(file)


def expect_random_reads(values: NDArray[Any]) -> None:
    """Tell the system that a map is read here and there, in stretches of a few pages.

    It then reads the pages that are asked for, and not the 128 KiB around them: of 512 samples of 4 KiB on a cold disk
    that was 1.4 s of 1.6 (`python -m tests.large_blend`).
    """
    owner: Any = values
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None) if not isinstance(owner, memoryview) else owner.obj
    if owner is not None:
        owner.madvise(mmap.MADV_RANDOM)


def _check_room(file: BinaryIO) -> None:
    """A copy gets the lowest number that is free, so that tells how many files are open; a map makes such a copy."""
    copy = os.dup(file.fileno())
    os.close(copy)
    needed = copy + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard):
        soft, hard = (_MANY if each == resource.RLIM_INFINITY else each for each in (soft, hard))
    if needed >= soft and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        soft = hard
    if needed >= soft:
        raise Refused(
            f"{printable(file.name)} cannot be mapped: this process has {copy:,} files open, and may have "
            f"{soft:,}. Raise that limit (ulimit -Hn), {_MERGE}"
        )
