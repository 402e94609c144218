"""`tools/reshape`: another layout of files, the same elements, facts and continuation."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_patches.artefacts.manifest import build_manifest, read_manifest, write_manifest
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.files import state_tensor
from megatron_patches.checkpoint.files.state_tensor import StateTensor, Stretch
from megatron_patches.checkpoint.offline.reshape import reshape_checkpoint
from megatron_patches.checkpoint.offline.writing import plan_files
from megatron_patches.errors import TrainyardError
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.run_directory import start_launch
from tests.command_line import Call, verb
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tests.whole_state import whole_tensors
from tools.commands import reshape

LAYOUT = overrides(parallel__tensor=2, training__precision="bf16", training__steps=5)


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of 5 steps under TP2 in bf16, with checkpoints of steps 3 and 5."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder, LAYOUT))
    run_on_ranks(train_launch, 2, str(launch.directory))
    return launch.run.path


def source(trained: Path) -> Path:
    return trained / "checkpoints" / "step-0000000003"


def contents(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    return {place: values.reshape(-1) for place, values in whole_tensors(folder).items()}


def assert_same_elements(found: Path, expected: Path) -> None:
    ours, theirs = contents(found), contents(expected)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype
        assert torch.equal(ours[key], tensor), key


def test_more_and_fewer_files_hold_the_same_elements_and_facts(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_tensor, "PIECE_ELEMENTS", 500)  # so that every matrix is cut
    five = reshape_checkpoint(source(trained), tmp_path / "five", 5, weights_only=False)
    one = reshape_checkpoint(tmp_path / "five", tmp_path / "one", 1, weights_only=False)
    original = read_manifest(source(trained) / "manifest.json")
    assert len([file for file in five.files if file.path.startswith("weights-")]) == 5
    assert {file.path for file in one.files} == {
        "weights-00000.safetensors", "optimizer-00000.safetensors", "config.yaml", "trainer.json",
        "tokenizer/manifest.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip
    assert five.facts == one.facts == original.facts
    assert (five.parents, one.parents) == ([original.id], [five.id])
    assert_same_elements(tmp_path / "five", source(trained))
    assert_same_elements(tmp_path / "one", source(trained))
    sizes = [file.size for file in five.files if file.path.startswith("optimizer-")]
    assert max(sizes) < 1.3 * min(sizes)
    for name in ("config.yaml", "trainer.json"):
        assert (tmp_path / "one" / name).read_bytes() == (source(trained) / name).read_bytes()


def test_a_run_continues_from_it_as_from_the_original(
    trained: Path, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    launch = start_launch(small_data.run(tmp_path, LAYOUT))
    reshape_checkpoint(source(trained), launch.run.checkpoints / "step-0000000003", 3, weights_only=False)
    run_on_ranks(train_launch, 2, str(launch.directory))
    assert_same_elements(*(path / "checkpoints" / "step-0000000005" for path in (launch.run.path, trained)))


def execute(*arguments: str, runs: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "TRAINYARD_RUNS": str(runs)}
    command = [CHECKOUT / "tools" / "reshape", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def call(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`tools/reshape` in this process."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained.parent))
    return verb(reshape, monkeypatch, capsys)


def test_weights_alone_by_the_command_line(trained: Path, tmp_path: Path, call: Call) -> None:
    settings = (f"{trained.name}@3", "--files", "2", "--weights-only", "--output", str(tmp_path / "weights"))
    done = execute(*settings, runs=trained.parent)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {
        "weights-00000.safetensors", "weights-00001.safetensors", "config.yaml", "tokenizer", "manifest.json",
    }  # fmt: skip
    assert read_manifest(tmp_path / "weights" / "manifest.json").facts["content"] == "weights"
    expected = {key: tensor for key, tensor in contents(source(trained)).items() if key[1] == "weight"}
    found = contents(tmp_path / "weights")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    again = call(*settings)
    assert (again.returncode, again.stderr) == (
        2, f"error: {tmp_path / 'weights'} exists; name another folder, or move it away\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("nowhere",), "there is no run directory"),
        (("{folder}",), "is no checkpoint: it has no manifest.json"),
        (("{trained}@4",), "has no checkpoint of step 4; it has those of 3, 5"),
        (("{trained}", "--files", "10000000"), "cannot be cut into 10000000 files; take between 1 and"),
        (("{damaged}",), "has sha256"),
        (("{truncated}",), "bytes, its manifest says"),
    ],
)
def test_bad_input_leaves_nothing(
    settings: tuple[str, ...], message: str, trained: Path, tmp_path: Path, call: Call
) -> None:
    places = {"folder": tmp_path / "folder", "trained": trained}
    places["folder"].mkdir()
    for kind in ("damaged", "truncated"):
        places[kind] = shutil.copytree(source(trained), tmp_path / kind)
        path = places[kind] / "weights-00000.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-4] if kind == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    before = sorted(tmp_path.iterdir())
    given = [word.format(**places) for word in settings]
    files = [] if "--files" in given else ["--files", "2"]
    done = call(*given, *files, "--output", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_hole_is_an_error_and_leaves_nothing(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(source(trained), tmp_path / "copy"))
    manifest = read_manifest(copy / "manifest.json")
    left = [file for file in manifest.files if file.path != "weights-00001.safetensors"]
    write_manifest(copy / "manifest.json", build_manifest("checkpoint", files=left, facts=manifest.facts))
    with pytest.raises(TrainyardError, match=r"of weight of .* were found; the checkpoint does not hold"):
        reshape_checkpoint(copy, tmp_path / "out", 1, weights_only=False)
    assert list(tmp_path.iterdir()) == [copy]


def test_a_checkpoint_of_weights_has_none_to_leave_out(trained: Path, tmp_path: Path) -> None:
    reshape_checkpoint(source(trained), tmp_path / "weights", 1, weights_only=True)
    with pytest.raises(TrainyardError, match="holds weights only already"):
        reshape_checkpoint(tmp_path / "weights", tmp_path / "again", 1, weights_only=True)


def test_a_checkpoint_that_lies_alone_is_read(
    trained: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(source(trained), tmp_path / "alone")
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path))
    done = call(tmp_path / "alone", "--files", 1, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["facts"]["step"] == 3


def tensor(name: str, elements: int, read: list[int] | None = None) -> StateTensor:
    def values(first: int, last: int) -> torch.Tensor:
        if read is not None:
            read.append(last - first)
        return torch.arange(first, last, dtype=torch.float32)

    shape = (elements // 4, 4)
    return StateTensor(name, "weight", shape, torch.float32, (Stretch(TensorSlice.whole(shape), 0, elements, values),))


@pytest.mark.parametrize("files", [1, 2, 3, 7, 64])
def test_files_have_equally_many_elements(files: int) -> None:
    planned = plan_files([tensor("a", 40), tensor("b", 4), tensor("c", 20)], files)
    sizes = [sum(piece.stop - piece.start for piece in held) for held in planned]
    assert (len(sizes), sum(sizes)) == (files, 64)
    assert max(sizes) - min(sizes) <= 1
    assert all(piece.start < piece.stop for held in planned for piece in held)


def test_no_more_than_a_piece_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_tensor, "PIECE_ELEMENTS", 10)
    read: list[int] = []
    (held,) = plan_files([tensor("a", 4000, read)], 1)
    assert torch.cat([piece.tensor.read(piece.start, piece.stop) for piece in held]).tolist() == list(range(4000))
    assert set(read) == {8}, "whole rows of 4, as many as fit into 10"
