"""Our safetensors files are the library's; names and sizes of a checkpoint are checked without reading it."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from megatron_patches.artefacts.folders import checkpoint_name, inspect, list_checkpoints
from megatron_patches.artefacts.unfinished import remove_leftovers
from megatron_patches.checkpoint.files.safetensors_stream import write_safetensors


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    tensors = {
        "a/weight": torch.randn(7),
        "a/master": torch.randn(3).bfloat16(),
        "b/weight": torch.randn(4, 6)[:, 2].contiguous(),
    }
    record = write_safetensors(tmp_path / "x.safetensors", tensors, {"slices": '{"é": 1}'})
    content = (tmp_path / "x.safetensors").read_bytes()
    assert (record.path, record.size) == ("x.safetensors", len(content))
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"slices": '{"é": 1}'}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor)


def test_a_view_is_written_without_the_storage_behind_it(tmp_path: Path) -> None:
    """torch.save of a view keeps its whole storage: checkpoints ten times their size."""
    view = torch.zeros(1_000_000).narrow(0, 5, 10)
    assert write_safetensors(tmp_path / "x.safetensors", {"v": view}, {}).size < 500


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_safetensors(tmp_path / "x.safetensors", {"a": torch.zeros(2, dtype=torch.float64)}, {})
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_listed_newest_first_and_leftovers_are_not(tmp_path: Path) -> None:
    for name in (checkpoint_name(9), checkpoint_name(10), checkpoint_name(11) + ".0001.saving", "notes"):
        (tmp_path / name).mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-0000000010", "step-0000000009"]
    assert [path.name for path in remove_leftovers(tmp_path)] == ["step-0000000011.0001.saving"]
    assert list_checkpoints(tmp_path / "nowhere") == []
    inspection = inspect(tmp_path / checkpoint_name(9))
    assert inspection.manifest is None and "manifest.json" in inspection.problems[0]
