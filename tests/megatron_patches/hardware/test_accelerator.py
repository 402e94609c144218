"""Whether there is a GPU, told without torch."""

from pathlib import Path

import pytest

from megatron_patches.hardware.accelerator import gpu_models, has_gpu


@pytest.mark.parametrize("file", ["nvidiactl", "kfd", "dxg"])
def test_a_driver_is_there(tmp_path: Path, file: str) -> None:
    assert not has_gpu(tmp_path, {})
    (tmp_path / file).touch()
    assert has_gpu(tmp_path, {}) and has_gpu(tmp_path, {"CUDA_VISIBLE_DEVICES": "0,1"})


@pytest.mark.parametrize("hidden", ["", " ", "-1"])
def test_devices_that_a_process_may_not_see(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu(tmp_path, {"CUDA_VISIBLE_DEVICES": hidden})


def test_what_nvidias_driver_calls_its_gpus(tmp_path: Path) -> None:
    assert gpu_models(tmp_path) == []
    for number, name in enumerate(("NVIDIA H200", "Tesla V100-SXM2-16GB")):
        (tmp_path / f"0000:{number}").mkdir()
        (tmp_path / f"0000:{number}" / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 33\n")
    assert gpu_models(tmp_path) == ["NVIDIA H200", "Tesla V100-SXM2-16GB"]
