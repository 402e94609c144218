"""`slurm/launch RUN.yaml --eval-only` as a person starts it: its plan, and one whole launch beside a run at work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Refused
from megatron_patches.evaluation.eval_only import plan
from megatron_patches.events.reading import read_events
from megatron_patches.run.ownership import newest_launch, refuse_living_owner
from megatron_patches.run.run_directory import start_launch
from slurm.heartbeat import HEARTBEAT, beat_text, this_process
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, train_launch

LOCAL = ["--local", "--owner", json.dumps({"pid": 1})]


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run's YAML, and of its `runs/`: 8 steps, saved at 3, 6 and 8, validated at 4 and 8."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder))
    run_on_ranks(train_launch, 1, str(launch.directory))
    return folder


@pytest.fixture
def yaml(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run's YAML; its folder is a copy."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return str(next((trained / "tr900-tests").glob("*.yaml")))


@pytest.fixture
def run(yaml: str, tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / Path(yaml).stem)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = plan.main([*words, *LOCAL])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.slow
def test_the_plan(yaml: str, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, yaml, "--eval-only", "all", "--parallel.local_processes", "2")
    made = json.loads(out)
    assert code == 0
    assert made == {
        "launch_directory": str(run.logs / "eval-only-0001"),
        "processes_per_node": 2,
        "nodes": 1,
        "rank": "megatron_patches.evaluation.eval_only.rank",
    }
    assert "checkpoints      3 steps: 3, 6, 8; weights alone are loaded" in err
    assert "groups           validation (10 samples)" in err
    assert "layout           2 processes = tensor 1 x pipeline 1 x data 2, micro-batch 2" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--eval-only", "--rehearse", "20"], "--rehearse and --eval-only: a rehearsal trains"),
        (["--eval-only", "7"], "no checkpoint of step 7; it has those of 3, 6, 8"),
        (["--eval-only", "--data.sequence_length", "32"], "has learned"),
        (["--eval-only", "--evaluation.sample", "32"], "evaluation.sample is not a known key"),
        (["--eval-only", "--parallel.local_processes", "3", "--parallel.tensor", "2"], "3 processes cannot be divided"),
        (["--eval-only", "--data.path", "gone/away"], "gone/away"),
        (["--eval-only", "--model.layers", "2"], "model.layers is 4 in it and 2 now"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    yaml: str, run: RunFolder, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, out, err = told(capsys, yaml, *words)
    assert (code, out, said in err) == (2, "", True), err
    assert not list(run.logs.glob("*eval-only*"))


@pytest.mark.slow
def test_a_launch_beside_one_that_trains(yaml: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's owner lives: its launch, its events and its checkpoints are as before, and step 8 has its loss."""
    owner = newest_launch(run)
    assert owner is not None
    (owner / "owner.json").write_text(json.dumps(this_process()))
    (owner / HEARTBEAT).write_bytes(beat_text(5))
    (owner / "ended.json").unlink(missing_ok=True)
    kept = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    done = subprocess.run(
        [CHECKOUT / "slurm/launch", yaml, "--eval-only", "8"], capture_output=True, text=True,
        env={**os.environ, "TRAINYARD_VENV": str(Path(sys.executable).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    assert newest_launch(run) == owner
    (result,) = (each.results["validation"] for each in list_evaluations(run, []))
    (recorded,) = (event.facts["loss"] for event in read_events(run.events, {"validation"}) if event.facts["step"] == 8)
    assert result.metrics["loss"].value == pytest.approx(recorded, rel=1e-6)
    assert f"{recorded:.4f}" in done.stdout
    assert (run.logs / "eval-only-0001" / "ended.json").exists()
    assert not (run.path / "checkpoints" / checkpoint_name(9)).exists()

    # and the run is still owned: whoever would train it is told so, once the owner's heart beats again
    monkeypatch.setenv("TRAINYARD_OWNER_TIMEOUT", "3")
    monkeypatch.setattr("time.sleep", lambda _: (owner / HEARTBEAT).write_bytes(beat_text(6)))
    with pytest.raises(Refused, match="is at work"):
        refuse_living_owner(run)
