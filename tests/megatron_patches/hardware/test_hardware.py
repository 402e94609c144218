"""What is known of GPUs, and that nothing is guessed of others."""

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.hardware.machines import HARDWARE, hardware_named, peak_tflops


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("Tesla V100-SXM2-32GB", "fp16", 125.0),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA H100 80GB HBM3", "fp8", 1978.9),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA H200", "fp32", 66.9),
        ("NVIDIA H200 NVL", "bf16", None),
        ("NVIDIA B200", "bf16", 2250.0),
        ("AMD Instinct MI250X", "bf16", 191.5),
        ("AMD Instinct MI300X", "bf16", 1307.4),
        ("", "bf16", None),
    ],
)
def test_peaks(device: str, precision: str, peak: float | None) -> None:
    assert peak_tflops(device, precision) == peak


def test_every_gpu_has_a_source_and_a_name_of_its_own() -> None:
    drivers = [name for each in HARDWARE for name in each.driver_names]
    assert len(drivers) == len(set(drivers))
    assert all(each.source and each.peaks["fp32"] < each.peaks["fp16"] for each in HARDWARE)


def test_a_person_may_write_a_name_small() -> None:
    assert hardware_named("h200") is hardware_named("NVIDIA H200")
    with pytest.raises(TrainyardError, match="no figures for a GPU RTX; known: V100-16GB"):
        hardware_named("RTX")
