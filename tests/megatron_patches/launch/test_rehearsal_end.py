"""What is said when a rehearsal has ended."""

import os
import subprocess
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT
from megatron_patches.events.writing import EventWriter
from megatron_patches.launch.rehearsal_end import Rehearsed, report
from megatron_patches.run.run_directory import Launch
from tests.small_training import SmallData


def launched(folder: Path, *ending: str) -> Launch:
    launch = Launch(folder / "tr8a-rehearsal-1" / "launches" / "0001")
    writer = EventWriter(launch.run.events, launch.id, "trainer")
    writer.write("start", step=0)
    for step, seconds in enumerate((9.0, 0.5, 0.25, 0.25), 1):
        writer.write("step", step=step, seconds=seconds, memory_bytes=step * 1000)
    writer.write("checkpoint", step=4)
    for kind in ending:
        writer.write(kind, step=4, **({"outcome": "finished"} if kind == "end" else {"text": "it went wrong"}))
    writer.close()
    return launch


def test_what_was_rehearsed_what_the_run_takes_and_how_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    path = tmp_path / "family" / "tr8a.yaml"
    run = Rehearsed(path, ("--training.trainable", "['*.bias']"), 7200)
    launch = launched(tmp_path, "end")
    assert report(launch, run).splitlines() == [
        "rehearsal of tr8a finished: 4 steps, 1 save, 0 validations; the run has 7,200 steps",
        "0.25 s a step: 0:30:00 for 7,200 steps, without saves and validations; 4 kB of memory on rank 0 at most",
        f"the run itself: slurm/launch {path} --training.trainable '['\"'\"'*.bias'\"'\"']'",
        f"what the rehearsal left can go: rm -r {launch.run.path}",
    ]
    path.parent.mkdir()
    path.with_suffix(".slurm").touch()
    assert f"the run itself: bash {path.with_suffix('.slurm')} --tr" in report(launch, run)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert f"the run itself: sbatch {path.with_suffix('.slurm')} --tr" in report(launch, run)


@pytest.mark.parametrize(("ending", "said"), [("failure", "failed:"), ("message", "did not come to its end:")])
def test_a_rehearsal_that_went_wrong(tmp_path: Path, ending: str, said: str) -> None:
    assert f"rehearsal of tr8a {said}" in report(launched(tmp_path, ending), Rehearsed(Path("tr8a.yaml"), (), 9))


@pytest.mark.slow
def test_a_rehearsal_from_the_launcher_to_its_last_word(small_data: SmallData, tmp_path: Path) -> None:
    path = small_data.write(tmp_path / "tr900-tests", "tr900a-28K-small")
    environment = {**os.environ, "TRAINYARD_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [CHECKOUT / "slurm" / "launch", path, "--training.steps", "40", "--rehearse", "4"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["tr900a-28K-small-rehearsal-1"]
    first, _, again, _ = done.stdout.splitlines()[-4:]
    assert first == "rehearsal of tr900a-28K-small finished: 4 steps, 4 saves, 4 validations; the run has 40 steps"
    assert again == f"the run itself: slurm/launch {path} --training.steps 40"
