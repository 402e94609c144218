"""`tools/export-hf`: where exports lie, what the inventory says of them, and mistakes that are told at once."""

import contextlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_patches.checkout import CHECKOUT
from megatron_patches.sizes import readable
from tests.command_line import Done, verb
from tests.megatron_patches.transformers_exchange.checkpoints import left_in, manifest_of, save_random, small_run
from tests.ranks import run_on_ranks
from tests.small_training import SmallData
from tools.command_line import run_app
from tools.commands import export_hf
from tools.commands.inventory import command_line as inventory

RUN = "tr900a-28K-small"


def called(environment: Mapping[str, str], *arguments: str) -> Done:
    """The command in a process that has torch already."""
    os.environ.update(environment)
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["verb", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_app(export_hf.app, "export-hf")
        except SystemExit as ended:
            return Done(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("it did not end")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Runs, data and cache of this test alone."""
    found = {f"TRAINYARD_{name}": str(tmp_path / name.lower()) for name in ("RUNS", "DATA", "CACHE")}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def checkpoint(small_data: SmallData, tmp_path: Path, places: dict[str, str]) -> Path:
    return save_random(tmp_path / "runs", small_run(small_data, tmp_path))


@pytest.mark.slow
def test_an_export_lies_with_its_run_and_is_known(checkpoint: Path, places: dict[str, str]) -> None:
    done = run_on_ranks(called, 1, places, f"{RUN}@8")[0]
    assert done.returncode == 0, done.stderr
    folder = checkpoint.parents[1] / "exports" / "hf-step-0000000008"
    made = manifest_of(folder)
    size = sum(file.size for file in made.files)
    told = f"{folder}: step-0000000008 as GPT2LMHeadModel in 7 files, {readable(size)}, id {made.id[:12]}"
    assert done.stdout.splitlines()[-1] == told
    assert "step-0000000008: model.safetensors, 189 kB" in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[:-1])
    assert f'"command": "tools/export-hf {RUN}@8"' in (folder / "card.json").read_text()

    def say(*words: str) -> str:
        return CliRunner().invoke(inventory.app, list(words), catch_exceptions=False).stdout

    assert f"{RUN}/hf-step-0000000008" in say("find", "--kind", "export")
    assert f"export {RUN}/hf-step-0000000008" in say("show", RUN)
    assert made.id[:12] in say("show", f"{RUN}/hf-step-0000000008")
    say("invalidate", f"{RUN}@8", "--because", "a spike")
    assert manifest_of(folder).status.state == "invalid"
    again = run_on_ranks(called, 1, places, f"{RUN}@8", "--output", str(folder.with_name("other")))[0]
    assert again.returncode == 2
    assert "marks this checkpoint invalid" in again.stderr and "a spike" in again.stderr
    assert left_in(folder.parent) == ["hf-step-0000000008"]


@pytest.mark.slow
def test_a_job_that_is_ended_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable}
    command = [CHECKOUT / "tools" / "export-hf", checkpoint, "--output", tmp_path / "exports" / "out"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.endswith(": card\n"):
            assert left_in(tmp_path / "exports") != []
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, said
    assert left_in(tmp_path / "exports") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--help",), None),
        (("nothing", "--output", "{here}/out"), "there is no run directory"),
        (("nothing", "--output", "{here}"), "exists; name another folder"),
        ((f"{RUN}@8", "--format", "t5"), "format t5: this run's architecture can become gpt2"),
        ((f"{RUN}@8", "--format", "llama"), "model.norm layernorm: it takes rmsnorm"),
    ],
)
def test_what_needs_no_torch_does_without(
    arguments: tuple[str, ...], message: str | None, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    command = [str(CHECKOUT / "tools" / "export-hf"), *(word.format(here=tmp_path) for word in arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if message is None:
        assert (done.returncode, done.stderr) == (0, "")
        assert "tools/export-hf" in done.stdout
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert left_in(checkpoint.parents[1]) == ["checkpoints"]


def test_a_library_that_is_missing_is_told_with_what_brings_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "transformers" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    done = verb(export_hf, monkeypatch, capsys)(checkpoint)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install -c constraints.txt -e .[transformers]" in done.stderr


@pytest.mark.parametrize("size", ["nothing", "0", "-1GB"])
def test_a_size_that_is_none_is_refused(
    size: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = verb(export_hf, monkeypatch, capsys)(checkpoint, f"--shard-size={size}")
    assert done.returncode == 2
    assert f"--shard-size {size}: give a size such as 500k, 50M or 2G" in done.stderr


def test_a_folder_of_no_run_needs_a_place(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.rename(tmp_path / "step-0000000008")
    done = verb(export_hf, monkeypatch, capsys)(tmp_path / "step-0000000008")
    assert done.returncode == 2
    assert "lies in no run's folder; say where the export is to be: --output FOLDER" in done.stderr


def test_a_damaged_checkpoint_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (checkpoint / "weights-00000.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    done = verb(export_hf, monkeypatch, capsys)(checkpoint)
    assert done.returncode == 2
    assert "weights-00000.safetensors has sha256" in done.stderr
    assert left_in(checkpoint.parents[1]) == ["checkpoints"]
