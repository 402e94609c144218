"""`tools/checkpoint` on real checkpoints of two layouts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from megatron_patches.artefacts.manifest import MANIFEST, Status, read_manifest, write_manifest
from megatron_patches.artefacts.marks import is_damaged, is_verified, pin_of
from megatron_patches.benchmark.checkpoint_cost import describe_cost, measure_cost
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.events.writing import EventWriter
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tests.whole_state import whole_tensors
from tools.commands.checkpoint.command_line import app

RUN = "tr900a-28K-small"
LAYOUTS = {"one": (1, []), "TP2": (2, overrides(parallel__tensor=2, parallel__zero_stage=0))}


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run twice, on two layouts, in two folders of runs."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        for name, (ranks, arguments) in LAYOUTS.items():
            patch.setenv("TRAINYARD_RUNS", str(folder / name))
            launch = start_launch(small_data.run(folder, arguments))
            run_on_ranks(train_launch, ranks, str(launch.directory))
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may damage; the run on one rank is found by its name."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs" / "one"))
    return tmp_path / "runs"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"}, catch_exceptions=True)


def folder_of(runs: Path, layout: str, step: int) -> Path:
    return runs / layout / RUN / "checkpoints" / f"step-{step:010d}"


def test_the_tree_has_every_parameter_and_folds_blocks_that_are_alike(runs: Path) -> None:
    text = call("show", RUN).stdout
    assert "step             8" in text and "tensor 1, pipeline 1, data 1" in text
    assert "layers.0 to layers.3, 4 alike" in text
    assert (
        "attention.query_key_value.linear.weight  [4, 3, 8, 32]  exp_avg float32, exp_avg_sq float32, weight float32"
        in text
    )
    assert "layers.2" not in text
    assert "layers.2" in call("show", f"{RUN}@6", "--every-block").stdout


def test_norms_are_those_of_the_tensors(runs: Path) -> None:
    shown = json.loads(call("show", str(folder_of(runs, "TP2", 8)), "--norms", "--json").stdout)
    whole = whole_tensors(folder_of(runs, "TP2", 8))
    assert {(line["name"], line["kind"]) for line in shown["tensors"]} == set(whole)
    for line in shown["tensors"]:
        expected = whole[line["name"], line["kind"]]
        assert tuple(line["shape"]) == tuple(expected.shape)
        assert line["norm"] == pytest.approx(expected.double().norm().item(), rel=1e-6)
    assert shown["manifest"]["facts"]["step"] == 8


def test_one_state_of_two_layouts_differs_by_rounding_only(runs: Path) -> None:
    result = call("diff", str(folder_of(runs, "one", 8)), str(folder_of(runs, "TP2", 8)), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["compared"] > 100
    assert max(each["relative"] for each in found["tensors"]) < 1e-3
    assert "layout" in {key for key, _, _ in found["facts"]}


def test_a_difference_of_one_bit_is_found(runs: Path) -> None:
    folder = folder_of(runs, "one", 8)
    other = folder.parents[2] / "other" / folder.name
    shutil.copytree(folder, other)
    assert call("diff", str(folder), str(other)).exit_code == 0
    path = other / "optimizer-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # the lowest bit of the last number
    path.write_bytes(content)
    result = call("diff", str(folder), str(other))
    assert result.exit_code == 1 and "1 of " in result.stdout and "bit for bit" in result.stdout


def test_verifying_reads_every_byte_and_marks_the_folder(runs: Path) -> None:
    newest = folder_of(runs, "one", 8)
    assert call("verify", RUN).stdout == "step-0000000008: whole\n"
    assert is_verified(newest)
    content = bytearray((newest / "weights-00000.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "weights-00000.safetensors").write_bytes(content)
    result = call("verify", RUN, "--all")
    assert result.exit_code == 1 and not is_verified(newest)
    first, *others = result.stdout.splitlines()
    assert "weights-00000.safetensors has sha256" in first
    assert others == ["step-0000000006: whole", "step-0000000003: whole"]


def test_one_that_is_marked_invalid_is_not_damaged_by_that(runs: Path) -> None:
    folder = folder_of(runs, "one", 6)
    manifest = read_manifest(folder / MANIFEST)
    write_manifest(folder / MANIFEST, manifest.model_copy(update={"status": Status(state="invalid", reason="a leak")}))
    assert "a leak" in call("verify", f"{RUN}@6").stdout
    assert not is_damaged(folder)


def test_a_pin_has_a_reason_and_goes_again(runs: Path) -> None:
    assert call("pin", f"{RUN}@6", "--because", "figure 3").exit_code == 0
    mark = pin_of(folder_of(runs, "one", 6))
    assert mark is not None and mark.reason == "figure 3"
    listed = json.loads(call("list", RUN, "--json").stdout)
    assert [(line["step"], line["pinned"]) for line in listed] == [(8, None), (6, "figure 3"), (3, None)]
    assert "figure 3" in call("list", RUN).stdout
    assert call("unpin", f"{RUN}@6").exit_code == 0
    assert pin_of(folder_of(runs, "one", 6)) is None
    assert call("pin", RUN).exit_code == 2, "a reason is asked for"
    for command in ("pin", "save"):
        assert isinstance(call(command, RUN, "--because", "it lies at s3://KEY:SECRET@bucket").exception, Refused)
    assert pin_of(folder_of(runs, "one", 8)) is None


def test_a_request_is_a_file_in_the_run(runs: Path) -> None:
    assert call("save", RUN, "--because", "before the move").exit_code == 0
    assert (runs / "one" / RUN / "save-requested").read_text() == "before the move\n"


def test_a_request_is_not_written_through_a_link(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (runs / "one" / RUN / "save-requested").symlink_to(tmp_path / "victim")
    assert call("save", RUN, "--because", "before the move").exit_code == 0
    assert (tmp_path / "victim").read_text() == "mine"
    assert (runs / "one" / RUN / "save-requested").read_text() == "before the move\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tr900a-28K-smoll", "there is no run directory .*; nearest: tr900a-28K-small"),
        (f"{RUN}@7", "has no checkpoint of step 7; it has those of 3, 6, 8"),
        (f"{RUN}@last", "behind it a step"),
        (str(CHECKOUT / "tests"), "is no checkpoint: it has no manifest.json"),
        (str(CHECKOUT / "nowhere" / "x"), "there is no run directory"),
    ],
)
def test_what_is_no_checkpoint_is_said(text: str, complaint: str, runs: Path) -> None:
    result = call("show", text)
    assert isinstance(result.exception, TrainyardError)
    with pytest.raises(TrainyardError, match=complaint):
        raise result.exception


def test_visible_damage_is_named(runs: Path) -> None:
    (folder_of(runs, "one", 8) / "weights-00000.safetensors").unlink()
    assert "weights-00000.safetensors is missing" in str(call("show", RUN).exception)
    assert "is missing" in json.loads(call("list", RUN, "--json").stdout)[0]["problem"]


def test_the_executable_answers_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    for arguments, code in ((["--help"], 0), (["show", "tr0z-none"], 2), (["list", "tr0z-none"], 2)):
        command = [CHECKOUT / "tools" / "checkpoint", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


@pytest.mark.slow
def test_the_bench_measures_all_four(tmp_path: Path) -> None:
    cost = measure_cost(tmp_path, gigabytes=0.025, repeats=2)
    assert cost.bytes == 25_000_000
    for seconds in (cost.stall, cost.torch_save, cost.write, cost.dd_and_sha256):
        assert len(seconds) == 2 and min(seconds) > 0
    assert "training waits" in describe_cost(cost)
    assert list(tmp_path.iterdir()) == []


def test_verifying_for_other_programs(runs: Path) -> None:
    (folder_of(runs, "one", 8) / "trainer.json").write_text("{ }")
    result = call("verify", RUN, "--all", "--json")
    found = {each["name"]: each for each in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert "trainer.json" in found["step-0000000008"]["problems"][0] and not found["step-0000000008"]["whole"]
    assert found["step-0000000006"]["whole"] and found["step-0000000006"]["problems"] == []


def test_the_list_says_the_best_that_the_inventory_says(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation of a step that was not saved may be better than those that were: both are told."""
    monkeypatch.setenv("TRAINYARD_CACHE", str(runs / "cache"))
    writer = EventWriter(runs / "one" / RUN / "events", "0001", "zzz")  # read after the trainer's
    writer.write("validation", step=7, loss=0.125)
    writer.close()
    assert (
        "best of the run: validation loss 0.125 at step 7; no checkpoint of that step is here"
        in call("list", RUN).stderr
    )
