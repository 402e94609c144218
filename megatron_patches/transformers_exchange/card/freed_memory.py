"""Memory of layers that come and go, given back to the machine when it is freed. Torch-free."""

import ctypes

_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h"""
_LARGE = 1 << 20
"""bytes"""


def give_back_freed_memory() -> None:
    """From here on, what is freed in this process and has 1 MB or more is no longer held by its allocator.

    glibc by itself raises that bound to 32 MB as blocks are freed (mallopt(3)), and keeps smaller ones in a heap that
    falls into pieces: a pass over 124M parameters by blocks left 450 MB of it unused. Another C library, without
    `mallopt`, stays as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_THRESHOLD, _LARGE)
