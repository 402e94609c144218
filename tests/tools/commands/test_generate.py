"""The command line of generation: mistakes are said before anything heavy is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT


def call(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # a module named torch that cannot be imported: reaching it would be a traceback and another exit code
    (runs / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {
        **os.environ,
        "TRAINYARD_PYTHON": sys.executable,
        "TRAINYARD_RUNS": str(runs),
        "PYTHONPATH": str(runs),
    }
    command = [CHECKOUT / "tools" / "generate", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("by_path", [True, False])
def test_a_run_without_checkpoints(tmp_path: Path, by_path: bool) -> None:
    (tmp_path / "tr9a-1K-none" / "launches").mkdir(parents=True)
    done = call(tmp_path, str(tmp_path / "tr9a-1K-none") if by_path else "tr9a-1K-none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/tr9a-1K-none has no checkpoints; train the run")


def test_a_run_that_was_never_launched(tmp_path: Path) -> None:
    (tmp_path / "tr9a-1K-some").mkdir()
    done = call(tmp_path, "tr9a-1K-sone")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: there is no run directory {tmp_path}/tr9a-1K-sone; nearest: tr9a-1K-some\n"


def test_a_step_that_was_not_saved(tmp_path: Path) -> None:
    for step in (5, 10):
        (tmp_path / "tr9a-1K-some" / "checkpoints" / f"step-{step:010d}").mkdir(parents=True)
    done = call(tmp_path, "tr9a-1K-some@7")
    assert done.returncode == 2
    assert "has no checkpoint of step 7; it has those of 5, 10" in done.stderr


@pytest.mark.parametrize("settings", ["--tokens 0", "--temperature -1", "--top-k 0", "--seed -1"])
def test_numbers_without_sense(tmp_path: Path, settings: str) -> None:
    assert call(tmp_path, "tr9a-1K-none", *settings.split()).returncode == 2
