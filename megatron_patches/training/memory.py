"""Memory of this process, as its device counts it; asking makes nobody wait."""

import os
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def memory_in_use(device: torch.device) -> int | None:
    """Bytes: on a GPU what torch has reserved at most, on a CPU what the process holds now; None where not known.

    torch counts what it reserves on the host, so the device is not asked.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc
        return None
