"""Our safetensors files are the library's; names and sizes of a checkpoint are checked without reading it."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from megatron_patches.artefacts.folders import (
    Content,
    checkpoint_name,
    inspect,
    list_checkpoints,
    parse_checkpoint_name,
    shelved_name,
    weights_name,
)
from megatron_patches.artefacts.unfinished import remove_leftovers
from megatron_patches.checkpoint.files.safetensors_stream import write_safetensors
from megatron_patches.dtypes import BYTES_OF_PRECISION, BYTES_OF_STORED
from megatron_patches.parameters.torch_dtypes import PRECISIONS, STORED


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    tensors = {
        "a/weight": torch.randn(7),
        "a/master": torch.randn(3).bfloat16(),
        "b/weight": torch.randn(4, 6)[:, 2].contiguous(),
        "one row": torch.randn(5, 1).T,  # contiguous, though its last stride is 1 by no need
        "one number": torch.tensor(3.0),
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


@given(st.integers(0, 10**10 - 1), st.sampled_from(["full", "weights"]), st.none() | st.just("89abcdef" * 8))
def test_a_name_says_what_it_was_made_of(step: int, content: Content, manifest_id: str | None) -> None:
    name = checkpoint_name(step, content)
    shelved = shelved_name(name, manifest_id) if manifest_id else name
    found = parse_checkpoint_name(shelved)
    assert found is not None
    assert (found.step, found.content, found.ending) == (step, content, shelved.removeprefix(name))
    assert found.with_content(content) == shelved
    assert weights_name(shelved) == checkpoint_name(step, "weights") + found.ending


@pytest.mark.parametrize("name", ["step-10", "step-0000000010.0001.saving", "stop-0000000010", "weights", ""])
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert parse_checkpoint_name(name) is None
    assert weights_name(name) == name


def test_the_tables_of_types_agree_with_torch() -> None:
    assert PRECISIONS.keys() == BYTES_OF_PRECISION.keys()
    assert {name: dtype.itemsize for name, dtype in PRECISIONS.items()} == BYTES_OF_PRECISION
    assert {name: dtype.itemsize for name, dtype in STORED.items()} == BYTES_OF_STORED


def test_checkpoints_are_listed_newest_first_and_leftovers_are_not(tmp_path: Path) -> None:
    for name in (checkpoint_name(9), checkpoint_name(10), checkpoint_name(11) + ".0001.saving", "notes"):
        (tmp_path / name).mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-0000000010", "step-0000000009"]
    assert [path.name for path in remove_leftovers(tmp_path).removed] == ["step-0000000011.0001.saving"]
    assert list_checkpoints(tmp_path / "nowhere") == []
    inspection = inspect(tmp_path / checkpoint_name(9))
    assert inspection.manifest is None and "manifest.json" in inspection.problems[0]
