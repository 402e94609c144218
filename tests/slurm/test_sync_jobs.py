"""The jobs that come back by themselves: with stand-ins for the submission and the sync, and on a real cluster."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_training import SmallData

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    (tmp_path / "yard" / "slurm").mkdir(parents=True)
    (tmp_path / "yard" / "tools").mkdir()
    (tmp_path / "yard" / "runs" / "tr1").mkdir(parents=True)
    for name in ("checkpoints", "logs"):
        shutil.copy(CHECKOUT / "slurm" / f"sync-{name}.slurm", tmp_path / "yard" / "slurm")
    shutil.copy(CHECKOUT / "slurm" / "coming_back.sh", tmp_path / "yard" / "slurm")
    (tmp_path / "bin").mkdir()
    tools = tmp_path / "yard" / "tools"
    for path in (tools / "sync-to-hub", tools / "submit", tmp_path / "bin/scancel"):
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> {tmp_path}/calls\n')
        path.chmod(0o755)
    with (tools / "submit").open("a") as script:
        script.write("echo job 8 is submitted: a key 999\n")
    return tmp_path / "yard"


def let_the_sync_end_with(yard: Path, code: int) -> None:
    with (yard / "tools" / "sync-to-hub").open("a") as script:
        script.write(f"exit {code}\n")


def submit(yard: Path, name: str, **more: str) -> tuple[int, list[str]]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "TRAINYARD"))}
    environment = {**keep, "PATH": f"{yard.parent / 'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(yard), **more}
    script = yard / "slurm" / f"sync-{name}.slurm"
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    calls = yard.parent / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def test_checkpoints(yard: Path) -> None:
    again = "--dependency=singleton --begin=now+60minutes slurm/sync-checkpoints.slurm"
    key = "submit --key sync-checkpoints-after-7"
    assert submit(yard, "checkpoints", SLURM_JOB_ID="7") == (0, [f"{key} {again}", "sync-to-hub --all"])


def test_logs(yard: Path) -> None:
    addresses = {"TRAINYARD_LOGS_TO": "hf://org/{run}", "TRAINYARD_SYNC_MINUTES": "5"}
    code, calls = submit(yard, "logs", SLURM_JOB_ID="7", **addresses)
    assert code == 0
    assert calls == [
        "submit --key sync-logs-after-7 --dependency=singleton --begin=now+5minutes slurm/sync-logs.slurm",
        "sync-to-hub tr1 --to hf://org/{run} --what logs,tensorboard",
    ]


def test_what_submitted_them_is_cleared_away(yard: Path) -> None:
    """Else a folder stayed for every hour."""
    own = yard / "slurm" / "submissions" / "sync-checkpoints-after-6"
    own.mkdir(parents=True)
    assert submit(yard, "checkpoints", SLURM_JOB_ID="7", trainyard_submission=str(own))[0] == 0
    assert not own.exists()


def test_they_end_when_asked_to(yard: Path) -> None:
    (yard / "slurm" / "sync-checkpoints.stop").touch()
    assert submit(yard, "checkpoints") == (0, [])


def test_outside_of_a_checkout(yard: Path) -> None:
    assert submit(yard, "checkpoints", SLURM_SUBMIT_DIR="/", TRAINYARD_HOME="/nowhere")[0] == 2


def test_logs_without_an_address_do_not_come_back(yard: Path) -> None:
    code, calls = submit(yard, "logs")
    assert code != 0
    assert calls == []


def test_logs_of_one_run_that_fail_do_not_hold_up_the_others_and_are_not_hidden(yard: Path) -> None:
    (yard / "runs" / "tr2").mkdir()
    stand_in = yard / "tools" / "sync-to-hub"
    stand_in.write_text(f'{stand_in.read_text()}[ "$1" != tr1 ]\n')
    code, calls = submit(yard, "logs", TRAINYARD_LOGS_TO="file:///logs")
    assert code == 1
    assert [call.split()[1] for call in calls[1:]] == ["tr1", "tr2"]


def test_without_runs_there_is_nothing_to_do(yard: Path) -> None:
    (yard / "runs" / "tr1").rmdir()
    code, calls = submit(yard, "logs", TRAINYARD_LOGS_TO="file:///logs")
    assert (code, len(calls)) == (0, 1)


@pytest.mark.parametrize("name", ["checkpoints", "logs"])
def test_what_would_be_refused_again_does_not_come_back(yard: Path, name: str) -> None:
    let_the_sync_end_with(yard, 2)
    code, calls = submit(yard, name, TRAINYARD_LOGS_TO="file:///logs", SLURM_JOB_ID="7")
    assert (code, calls[-1]) == (2, f"submit --withdraw sync-{name}-after-7")
    assert not (yard / "slurm" / f"sync-{name}.next").exists()


@pytest.mark.parametrize("name", ["checkpoints", "logs"])
def test_what_fails_comes_back_a_number_of_times(yard: Path, name: str) -> None:
    """Each job has the id that the one before it awaited."""
    let_the_sync_end_with(yard, 1)
    for _ in range(23):
        code, calls = submit(yard, name, TRAINYARD_LOGS_TO="file:///logs", SLURM_JOB_ID="8")
        assert (code, any("--withdraw" in call for call in calls)) == (1, False)
    code, calls = submit(yard, name, TRAINYARD_LOGS_TO="file:///logs", SLURM_JOB_ID="8")
    assert (code, calls[-1]) == (1, f"submit --withdraw sync-{name}-after-8")


def test_syncs_that_are_killed_count_as_failed(yard: Path) -> None:
    (yard / "slurm" / "sync-checkpoints.next").write_text("8 24\n")
    assert submit(yard, "checkpoints", SLURM_JOB_ID="8") == (1, [])


def test_a_sync_that_went_well_and_a_new_submission_count_anew(yard: Path) -> None:
    following = yard / "slurm" / "sync-checkpoints.next"
    following.write_text("8 20\n")
    assert submit(yard, "checkpoints", SLURM_JOB_ID="8")[0] == 0
    assert following.read_text() == "8 0\n"
    following.write_text("5 24\n")
    code, calls = submit(yard, "checkpoints", SLURM_JOB_ID="7")
    assert code == 0
    assert "scancel --state=PENDING --name=trainyard-sync-checkpoints 5" in calls, "one that comes back is enough"


@pytest.mark.parametrize("minutes", ["0", "-5", "soon", "1e3", "1 2"])
def test_times_that_are_none(yard: Path, minutes: str) -> None:
    assert submit(yard, "checkpoints", TRAINYARD_SYNC_MINUTES=minutes) == (2, [])


def test_logs_without_a_runs_folder_do_not_come_back(yard: Path) -> None:
    shutil.rmtree(yard / "runs")
    assert submit(yard, "logs", TRAINYARD_LOGS_TO="file:///logs") == (2, [])


@pytest.mark.parametrize("name", ["checkpoints", "logs"])
def test_they_take_the_sites_python(yard: Path, name: str) -> None:
    (yard / "slurm" / "sites").mkdir()
    (yard / "slurm" / "sites" / "here.sh").write_text("TRAINYARD_VENV=$UNKNOWN/site TRAINYARD_LOGS_TO=file:///logs\n")
    stand_in = yard / "tools" / "sync-to-hub"
    stand_in.write_text(f'#!/bin/sh\necho "python of $TRAINYARD_VENV" >> {yard.parent}/calls\n')
    code, calls = submit(yard, name, TRAINYARD_SITE="here")
    assert (code, calls[-1]) == (0, "python of /site")


@pytest.fixture
def real_yard(tmp_path: Path) -> Path:
    """A checkout with one run that has a checkpoint, a log, and a YAML that names a location."""
    home = tmp_path / "trainyard"
    for name in ("slurm", "tools", "data_tools", "megatron_patches"):
        shutil.copytree(CHECKOUT / name, home / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (home / "logs").mkdir()
    make_checkpoint(home / "runs", 100)
    (home / "runs" / RUN / "logs").mkdir()
    (home / "runs" / RUN / "logs" / "0001.log").write_text("said\n")
    run = SmallData(home / "data").write(home / "train" / "tr900-tests", RUN)
    run.write_text(f'{run.read_text()}storage: {{locations: [{{to: "file://{tmp_path}/archive"}}]}}\n')
    return home


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("name", "copied"), [("checkpoints", "checkpoints/step-0000000100/manifest.json"), ("logs", "logs/0001.log")]
)
def test_a_real_job_copies_and_has_queued_the_next(cluster: Cluster, real_yard: Path, name: str, copied: str) -> None:
    archive = real_yard.parent / "archive"
    settings = {"TRAINYARD_LOGS_TO": f"file://{archive}", "TRAINYARD_CACHE": str(real_yard.parent / "cache")}
    job = cluster.sbatch(f"slurm/sync-{name}.slurm", cwd=real_yard, env=settings)
    assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)
    queue = cluster.run("squeue", "--noheader", "--format=%i %T", f"--name=trainyard-sync-{name}").stdout.split()
    try:
        assert len(queue) == 2, "one job, pending"
        assert (int(queue[0]) > job, queue[1]) == (True, "PENDING")
        following = cluster.describe(int(queue[0]))
        assert following["WorkDir"] == str(real_yard)
        assert following["EligibleTime"] > following["SubmitTime"]
        assert (archive / RUN / copied).read_bytes() == (real_yard / "runs" / RUN / copied).read_bytes()
    finally:
        for each in queue[::2]:
            cluster.cancel(int(each))


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("checkpoints", "no location", "names storage.locations in its YAML"),
        ("checkpoints", "no runs", "is no folder; export TRAINYARD_RUNS"),
        ("checkpoints", "not allowed", "name another location"),
        ("logs", "not allowed", "name another location"),
        ("logs", "no address", "there is no storage ftp"),
    ],
)
def test_a_real_job_that_would_be_refused_again_queues_nothing(
    cluster: Cluster, real_yard: Path, name: str, fault: str, said: str
) -> None:
    archive = real_yard.parent / "archive"
    settings = {"TRAINYARD_LOGS_TO": f"file://{archive}", "TRAINYARD_CACHE": str(real_yard.parent / "cache")}
    if fault == "no location":
        shutil.rmtree(real_yard / "train")
    elif fault == "no runs":
        shutil.rmtree(real_yard / "runs")
    elif fault == "not allowed":
        archive.write_text("a file where the folder of copies should be")
    else:
        settings["TRAINYARD_LOGS_TO"] = "ftp://somewhere"
    job = cluster.sbatch(f"slurm/sync-{name}.slurm", cwd=real_yard, env=settings)
    assert cluster.wait(job) == ("FAILED", 2), cluster.log(job)
    assert said in cluster.log(job)
    assert "not coming back" in cluster.log(job)
    queue = f"squeue --noheader --format=%i --states=all --name=trainyard-sync-{name}"
    others = [int(each) for each in cluster.run(*queue.split()).stdout.split() if int(each) > job]
    assert [cluster.state(each)[0] for each in others] == ["CANCELLED"] * len(others)
