"""Whether there is a GPU, told without torch."""

from pathlib import Path

import pytest

from megatron_patches.accelerator import has_gpu


@pytest.mark.parametrize("file", ["nvidiactl", "kfd", "dxg"])
def test_a_driver_is_there(tmp_path: Path, file: str) -> None:
    assert not has_gpu(tmp_path, {})
    (tmp_path / file).touch()
    assert has_gpu(tmp_path, {}) and has_gpu(tmp_path, {"CUDA_VISIBLE_DEVICES": "0,1"})


@pytest.mark.parametrize("hidden", ["", " ", "-1"])
def test_devices_that_a_process_may_not_see(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu(tmp_path, {"CUDA_VISIBLE_DEVICES": hidden})
