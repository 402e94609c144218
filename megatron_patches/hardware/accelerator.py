"""Whether this machine has a GPU, and which, as far as that can be told without torch."""

import os
from collections.abc import Mapping
from pathlib import Path

_DRIVERS = ("nvidiactl", "kfd", "dxg")
"""device files of NVIDIA's driver, of AMD's, and of Windows' subsystem for Linux"""


def has_gpu(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a GPU's driver is there and this process may see its devices."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and (not visible.strip() or visible.startswith("-"))
    return not hidden and any((devices / name).exists() for name in _DRIVERS)


def gpu_models(gpus: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """What NVIDIA's driver calls the GPUs that it shows; none where it says nothing, or the driver is another's."""
    lines = (line for file in sorted(gpus.glob("*/information")) for line in file.read_text().splitlines())
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
