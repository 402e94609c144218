"""What a GPU can do at most: dense peaks by precision, memory, links. Torch-free.

Everything is from the maker's data sheet and for one device as a process sees it: an MI250X shows itself as two. What
is not listed is not known: no MFU is computed with a guess.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_patches.errors import TrainyardError

Arithmetic = Literal["fp32", "tf32", "fp16", "bf16", "fp8"]

GB = 10**9


@dataclass(frozen=True)
class Hardware:
    """One kind of GPU."""

    name: str
    """what `--gpu` calls it"""
    driver_names: tuple[str, ...]
    """what torch.cuda.get_device_name says, exactly"""
    peaks: Mapping[Arithmetic, float]
    """TFLOP/s of dense matrices (no structured sparsity); a precision that is missing is not supported"""
    memory: int
    """bytes as sold; the driver keeps some for itself"""
    memory_bandwidth: float
    """bytes/s"""
    link: float
    """bytes/s that a GPU sends to its node's other GPUs, all its links together, one direction"""
    source: str

    @property
    def usable_memory(self) -> int:
        """Bytes for tensors: the driver's context and NCCL's buffers take 2 to 3 GB, fragments some percent."""
        return round(self.memory * 0.92)


def _hopper(name: str, driver_name: str, memory: int, bandwidth: float, source: str) -> Hardware:
    peaks: dict[Arithmetic, float] = {"fp32": 66.9, "tf32": 494.7, "fp16": 989.4, "bf16": 989.4, "fp8": 1978.9}
    return Hardware(name, (driver_name,), peaks, memory * GB, bandwidth, 450e9, source)


def _ampere(name: str, memory: int, bandwidth: float) -> Hardware:
    drivers = (f"NVIDIA A100-SXM4-{memory}GB", f"A100-SXM4-{memory}GB")  # drivers before 470 leave the maker out
    peaks: dict[Arithmetic, float] = {"fp32": 19.5, "tf32": 156.0, "fp16": 312.0, "bf16": 312.0}
    return Hardware(name, drivers, peaks, memory * GB, bandwidth, 300e9, "NVIDIA A100 data sheet, June 2021")


def _volta(memory: int) -> Hardware:
    drivers = (f"Tesla V100-SXM2-{memory}GB",)
    source = "NVIDIA V100 data sheet, January 2020"
    return Hardware(f"V100-{memory}GB", drivers, {"fp32": 15.7, "fp16": 125.0}, memory * GB, 900e9, 150e9, source)


HARDWARE = (
    _volta(16),
    _volta(32),
    _ampere("A100-40GB", 40, 1555e9),
    _ampere("A100-80GB", 80, 2039e9),
    _hopper("H100", "NVIDIA H100 80GB HBM3", 80, 3350e9, "NVIDIA H100 Tensor Core GPU architecture, table 2 (SXM5)"),
    _hopper("H200", "NVIDIA H200", 141, 4800e9, "NVIDIA H200 data sheet (SXM); compute as H100's architecture paper"),
    Hardware(
        name="B200",
        driver_names=("NVIDIA B200",),
        peaks={"fp32": 80.0, "tf32": 1100.0, "fp16": 2250.0, "bf16": 2250.0, "fp8": 4500.0},
        memory=180 * GB,
        memory_bandwidth=8000e9,
        link=900e9,
        source="NVIDIA Blackwell architecture technical brief, HGX B200 at 1,000 W",
    ),
    Hardware(
        name="MI250X",
        driver_names=("AMD Instinct MI250X", "AMD Instinct MI250X/MI250"),
        peaks={"fp32": 23.95, "fp16": 191.5, "bf16": 191.5},
        memory=64 * GB,
        memory_bandwidth=1638e9,
        link=200e9,
        source="AMD Instinct MI250X data sheet, halved: one of its two dies is a device",
    ),
    Hardware(
        name="MI300X",
        driver_names=("AMD Instinct MI300X", "AMD Instinct MI300X OAM"),
        peaks={"fp32": 163.4, "tf32": 653.7, "fp16": 1307.4, "bf16": 1307.4, "fp8": 2614.9},
        memory=192 * GB,
        memory_bandwidth=5300e9,
        link=448e9,
        source="AMD Instinct MI300X data sheet",
    ),
)


def hardware_of_device(driver_name: str) -> Hardware | None:
    """The GPU that a driver names, or None: one letter of another name is another GPU (H200 NVL is no H200)."""
    return next((each for each in HARDWARE if driver_name in each.driver_names), None)


def hardware_named(name: str) -> Hardware:
    """The GPU that a person names, in any case.

    Raises:
        TrainyardError: it is not in the table.
    """
    for each in HARDWARE:
        if name.lower() in (each.name.lower(), *(driver.lower() for driver in each.driver_names)):
            return each
    known = ", ".join(each.name for each in HARDWARE)
    raise TrainyardError(
        f"there are no figures for a GPU {name}; known: {known}. Leave --gpu out for what needs none, or add the GPU "
        "with its data sheet to megatron_patches/hardware/machines.py"
    )


def peak_tflops(driver_name: str, precision: str) -> float | None:
    """Dense peak of a GPU in a run's precision, TFLOP/s, or None where it is not known for certain.

    fp32 is the peak of fp32 itself: matrices are not rounded to tf32 here. With `training.fp8` it is still bf16's, the
    run's precision: scores, head and loss are computed in it, so float8's peak would bound no run, and an MFU with fp8
    beside one without says how much faster the run is.
    """
    found = hardware_of_device(driver_name)
    return peak_of(found, precision) if found else None


def peak_of(hardware: Hardware, precision: str) -> float | None:
    """The same of a known GPU; None where it has no units for the precision (bf16 on a V100)."""
    return next((peak for name, peak in hardware.peaks.items() if name == precision), None)


def cpu_name() -> str:
    """Model and number of this machine's CPUs, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.processor() or platform.machine())}, {os.cpu_count()} CPUs"
