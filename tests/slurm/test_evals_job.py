"""The job that evaluates a run's checkpoints as they come, and comes back until the run is finished: with stand-ins for
the submission and the evaluation."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "tr1-evals"
WORDS = "tr1 --tasks 'mmlu:/data/a b'"
AGAIN = f"submit --key {NAME}-after-7 --dependency=singleton --begin=now+60minutes --job-name={NAME} slurm/evals.slurm"
BACK = f"submit --withdraw {NAME}-after-7"


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    home = tmp_path / "yard"
    for folder in (home / "slurm" / "sites", home / "tools", tmp_path / "bin"):
        folder.mkdir(parents=True)
    for name in ("evals.slurm", "coming_back.sh"):
        shutil.copy(CHECKOUT / "slurm" / name, home / "slurm")
    for path in (home / "tools" / "evals", home / "tools" / "submit", tmp_path / "bin" / "scancel"):
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> {tmp_path}/calls\n')
        path.chmod(0o755)
    with (home / "tools" / "submit").open("a") as script:
        script.write("echo job 8 is submitted: a key 999\n")
    return home


def let_the_evaluation_end_with(yard: Path, code: int) -> None:
    with (yard / "tools" / "evals").open("a") as script:
        script.write(f"exit {code}\n")


def submit(yard: Path, **more: str) -> tuple[int, list[str]]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "TRAINYARD"))}
    known = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": NAME, "SLURM_SUBMIT_DIR": str(yard), "EVALS": WORDS}
    environment = {**keep, "PATH": f"{yard.parent / 'bin'}:{os.environ['PATH']}", **known, **more}
    script = yard / "slurm" / "evals.slurm"
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    calls = yard.parent / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def test_while_the_run_goes_on_it_comes_back(yard: Path) -> None:
    let_the_evaluation_end_with(yard, 75)
    assert submit(yard) == (0, [AGAIN, "evals run tr1 --tasks mmlu:/data/a b --come-back"])
    assert (yard / "slurm" / f"{NAME}.next").read_text() == "8 0\n"


def test_words_keep_their_spaces(yard: Path) -> None:
    (yard / "tools" / "evals").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {yard}/words\nexit 75\n')
    submit(yard)
    assert (yard / "words").read_text().splitlines() == ["run", "tr1", "--tasks", "mmlu:/data/a b", "--come-back"]


def test_of_a_finished_run_it_does_not_come_back(yard: Path) -> None:
    own = yard / "slurm" / "submissions" / "evals-after-6"
    own.mkdir(parents=True)
    code, calls = submit(yard, trainyard_submission=str(own))
    assert (code, calls[0], calls[-1]) == (0, AGAIN, BACK)
    assert not (yard / "slurm" / f"{NAME}.next").exists()
    assert not own.exists(), "how it was submitted is cleared away"


def test_what_would_be_refused_again_does_not_come_back(yard: Path) -> None:
    let_the_evaluation_end_with(yard, 2)
    code, calls = submit(yard)
    assert (code, calls[-1]) == (2, BACK)
    assert not (yard / "slurm" / f"{NAME}.next").exists()


@pytest.mark.parametrize("ended", [1, 137])
def test_what_fails_comes_back_a_number_of_times(yard: Path, ended: int) -> None:
    """Each job has the id that the one before it awaited."""
    let_the_evaluation_end_with(yard, ended)
    (yard / "slurm" / f"{NAME}.next").write_text("8 22\n")
    code, calls = submit(yard, SLURM_JOB_ID="8")
    assert (code, any("--withdraw" in call for call in calls)) == (ended, False)
    code, calls = submit(yard, SLURM_JOB_ID="8")
    assert (code, calls[-1]) == (ended, f"submit --withdraw {NAME}-after-8")


def test_those_of_two_runs_do_not_meet(yard: Path) -> None:
    let_the_evaluation_end_with(yard, 75)
    submit(yard)
    code, calls = submit(yard, SLURM_JOB_NAME="tr2-evals", SLURM_JOB_ID="9")
    assert code == 0
    assert [call for call in calls if "scancel" in call] == []
    assert sorted(path.name for path in (yard / "slurm").glob("*.next")) == ["tr1-evals.next", "tr2-evals.next"]


def test_of_two_submissions_one_comes_back(yard: Path) -> None:
    let_the_evaluation_end_with(yard, 75)
    submit(yard)
    _, calls = submit(yard, SLURM_JOB_ID="9")
    assert f"scancel --state=PENDING --name={NAME} 8" in calls


def test_it_ends_when_asked_to(yard: Path) -> None:
    (yard / "slurm" / f"{NAME}.stop").touch()
    assert submit(yard) == (0, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"EVALS": ""},
        {"EVALS": "tr1 --tasks 'mmlu"},
        {"TRAINYARD_EVALS_MINUTES": "soon"},
        {"SLURM_JOB_NAME": "a b"},
        {"SLURM_JOB_NAME": "../a"},
        {"SLURM_SUBMIT_DIR": "/", "TRAINYARD_HOME": "/nowhere"},
    ],
)
def test_mistakes_queue_nothing(yard: Path, wrong: dict[str, str]) -> None:
    assert submit(yard, **wrong) == (2, [])


def test_it_takes_the_sites_python(yard: Path) -> None:
    (yard / "slurm" / "sites" / "here.sh").write_text("TRAINYARD_VENV=$UNKNOWN/site\n")
    (yard / "tools" / "evals").write_text(f'#!/bin/sh\necho "python of $TRAINYARD_VENV" >> {yard.parent}/calls\n')
    code, calls = submit(yard, TRAINYARD_SITE="here")
    assert (code, calls[1]) == (0, "python of /site")
