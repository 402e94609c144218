"""The jobs that come back by themselves: with stand-ins for sbatch and for the sync."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    (tmp_path / "yard" / "slurm").mkdir(parents=True)
    (tmp_path / "yard" / "tools").mkdir()
    (tmp_path / "yard" / "runs" / "tr1").mkdir(parents=True)
    for name in ("checkpoints", "logs"):
        shutil.copy(CHECKOUT / "slurm" / f"sync-{name}.slurm", tmp_path / "yard" / "slurm")
    for path in (tmp_path / "yard" / "tools" / "sync-to-hub", tmp_path / "bin" / "sbatch"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> {tmp_path}/calls\n')
        path.chmod(0o755)
    return tmp_path / "yard"


def submit(yard: Path, name: str, **more: str) -> tuple[int, list[str]]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "TRAINYARD"))}
    environment = {**keep, "PATH": f"{yard.parent / 'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(yard), **more}
    script = yard / "slurm" / f"sync-{name}.slurm"
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    calls = yard.parent / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def test_checkpoints(yard: Path) -> None:
    again = "sbatch --dependency=singleton --begin=now+60minutes slurm/sync-checkpoints.slurm"
    assert submit(yard, "checkpoints") == (0, [again, "sync-to-hub --all"])


def test_logs(yard: Path) -> None:
    code, calls = submit(yard, "logs", TRAINYARD_LOGS_TO="hf://org/{run}", TRAINYARD_SYNC_MINUTES="5")
    assert code == 0
    assert calls == [
        "sbatch --dependency=singleton --begin=now+5minutes slurm/sync-logs.slurm",
        "sync-to-hub tr1 --to hf://org/{run} --what logs,tensorboard",
    ]


def test_they_end_when_asked_to(yard: Path) -> None:
    (yard / "slurm" / "sync-checkpoints.stop").touch()
    assert submit(yard, "checkpoints") == (0, [])


def test_outside_of_a_checkout(yard: Path) -> None:
    assert submit(yard, "checkpoints", SLURM_SUBMIT_DIR="/", TRAINYARD_HOME="/nowhere")[0] == 2
