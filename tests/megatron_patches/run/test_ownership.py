"""Who owns a run: claims, heartbeats, takeovers."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.run import ownership
from megatron_patches.run.ownership import (
    OWNER,
    TIMEOUT,
    Owner,
    claim_launch,
    has_begun,
    later_launches,
    newest_launch,
    read_owner,
    refuse_living_owner,
)
from slurm import heartbeat
from slurm.heartbeat import ENDED, HEARTBEAT, Heartbeat, beat_text, started_at, this_process
from tests.torture.owners import torture

DAMAGED = [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 100, b"0" * (1 << 20)]
ELSEWHERE = {"host": "node7", "boot": "another", "pids": "pid:[1]", "pid": 1, "started": 1, "job": None, "restarts": 0}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv(TIMEOUT, "0.2")
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_BEATS", 0.05)
    return RunFolder(tmp_path / "run")


def test_launches_are_numbered_and_hold_their_files(run: RunFolder) -> None:
    assert newest_launch(run) is None and refuse_living_owner(run) is None
    first = claim_launch(run, {"config.yaml": b"x"})
    assert (first.name, (first / "config.yaml").read_bytes(), (first / ENDED).exists()) == ("0001", b"x", True)
    second = claim_launch(run, {}, this_process())
    assert second == newest_launch(run)
    assert later_launches(first) == [second] and later_launches(second) == []
    assert [path.name for path in run.launches.iterdir() if not path.name.isdecimal()] == []


def test_a_number_beyond_a_stale_listing_is_found(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        claim_launch(run, {})
    monkeypatch.setattr(ownership, "names_in", lambda _: ["0001"])
    assert claim_launch(run, {}).name == "0004"


def test_the_ten_thousandth_launch_is_the_newest(run: RunFolder) -> None:
    for name in ("0001", "9999", "10000"):
        (run.launches / name).mkdir(parents=True)
    assert newest_launch(run) == run.launches / "10000"
    assert later_launches(run.launches / "9999") == [run.launches / "10000"]


def test_a_launch_that_beats_is_refused_and_told(run: RunFolder, tmp_path: Path) -> None:
    launch = claim_launch(run, {}, {**ELSEWHERE, "job": 4711})
    run.events.mkdir()
    (run.events / "0001-trainer.jsonl").write_text(
        '{"kind": "start", "time": "2026-01-01T00:00:00+00:00", "step": 0}\n'
        f'{{"kind": "step", "time": "{_ago(90)}", "step": 12, "loss": 1.0}}\n{{"kind": "ste'
    )
    with _beating(launch), pytest.raises(Refused) as refused:
        claim_launch(run, {}, this_process())
    for part in (
        "launch 0001",
        "job 4711 on node7",
        "seen just now",
        "scancel --signal=USR1 --batch 4711",
    ):
        assert part in str(refused.value)
    assert re.search(r"at step 12 9\d seconds ago", str(refused.value))
    assert sorted(path.name for path in run.launches.iterdir()) == ["0001"]


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@pytest.mark.parametrize("beat", [b"", b"5", b"5 yesterday", b"\xff \xff", b"5 2026-01-01T00:00:00", None])
def test_a_heartbeat_without_a_time_leaves_the_age_out(run: RunFolder, beat: bytes | None) -> None:
    launch = claim_launch(run, {}, ELSEWHERE)
    run.events.mkdir()
    (run.events / "0001-trainer.jsonl").write_text(f'{{"kind": "step", "time": "{_ago(5)}", "step": 12}}\n')
    assert "at step 12, its heartbeat" in ownership._at_work(launch, Owner({}), beat)
    (run.events / "0001-trainer.jsonl").unlink()
    os.mkfifo(run.events / "0001-trainer.jsonl")
    assert "before its first step" in ownership._at_work(launch, Owner({}), beat)


def test_a_launch_without_a_beat_is_taken_over(run: RunFolder) -> None:
    claim_launch(run, {}, ELSEWHERE)
    told: list[str] = []
    former = refuse_living_owner(run, told.append)
    assert former is not None and former.launch.name == "0001"
    began = time.monotonic()
    assert claim_launch(run, {}, ELSEWHERE, former).name == "0002"
    assert time.monotonic() - began < 0.2  # it is not waited for a second time
    with pytest.raises(Refused), _beating(run.launches / "0002"):
        claim_launch(run, {}, ELSEWHERE, former)  # another was quicker


def test_one_that_beats_again_after_the_look_is_not_taken_over(run: RunFolder) -> None:
    launch = claim_launch(run, {}, ELSEWHERE)
    former = refuse_living_owner(run)
    with _beating(launch), pytest.raises(Refused, match="launch 0001"):
        claim_launch(run, {}, ELSEWHERE, former)


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("name", [OWNER, HEARTBEAT])
def test_damaged_files_prove_nothing(run: RunFolder, name: str, content: bytes) -> None:
    launch = claim_launch(run, {}, ELSEWHERE)
    (launch / name).write_bytes(content)
    if name == OWNER:
        with _beating(launch), pytest.raises(Refused, match="is at work"):
            claim_launch(run, {}, ELSEWHERE)
    assert claim_launch(run, {}, ELSEWHERE).name == "0002"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run: RunFolder) -> None:
    launch = claim_launch(run, {}, ELSEWHERE)
    for name in (OWNER, HEARTBEAT):
        (launch / name).unlink()
        os.mkfifo(launch / name)
    assert read_owner(launch) == Owner({})
    assert claim_launch(run, {}, ELSEWHERE).name == "0002"


@pytest.mark.parametrize("damage", ["missing", "empty", "huge", "pipe", "link"])
def test_a_launch_that_lives_puts_its_heartbeat_right(
    run: RunFolder, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TIMEOUT, "60")
    launch = claim_launch(run, {}, ELSEWHERE)
    path, kept = launch / HEARTBEAT, launch / "kept"
    kept.write_bytes(b"kept")
    path.unlink()
    if damage == "empty":
        path.touch()
    elif damage == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link":
        path.symlink_to(kept)
    over = threading.Event()
    beating = Heartbeat(launch)

    def beat() -> None:
        while not over.wait(0.02):
            assert beating.beat() is None

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(Refused, match="is at work"):
            refuse_living_owner(run)
    finally:
        over.set()
        thread.join()
    assert kept.read_bytes() == b"kept" and len(path.read_bytes()) == len(beat_text(1))


def test_a_launch_of_an_earlier_version_is_over(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "600")
    (run.launches / "0007").mkdir(parents=True)
    assert claim_launch(run, {}, ELSEWHERE).name == "0008"


@pytest.mark.slow
def test_a_process_that_is_gone_is_known_at_once(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "600")
    gone = subprocess.run([sys.executable, "-c", _TELL], capture_output=True, text=True, check=True)
    assert Owner(json.loads(gone.stdout)).is_gone()
    assert not Owner(this_process()).is_gone()
    assert Owner({**this_process(), "started": 1}).is_gone()  # its number was given to another process
    assert not Owner({**this_process(), "pids": "pid:[1]"}).is_gone()
    assert not Owner({**this_process(), "boot": None}).is_gone()
    claim_launch(run, {}, json.loads(gone.stdout))
    assert claim_launch(run, {}, this_process()).name == "0002"


_TELL = "import json; from slurm.heartbeat import this_process; print(json.dumps(this_process()))"


def test_a_requeued_job_takes_over_from_itself(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "600")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    owner = {**ELSEWHERE, "job": 12, "cluster": "c"}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert Owner(owner).is_gone()
    assert not Owner({**owner, "restarts": 1}).is_gone()
    assert not Owner({**owner, "cluster": "d"}).is_gone()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "over"),
    [
        ("exit 0", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo RUNNING", False),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_what_the_queue_says_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, over: bool) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\n{answer}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    owner = {**ELSEWHERE, "job": 12, "cluster": "c", "user": os.getuid()}
    assert Owner(owner).has_lost_its_job() is over
    for other in ({"cluster": "d"}, {"user": os.getuid() + 1}, {"job": None}, {"job": "12"}):
        assert not Owner({**owner, **other}).has_lost_its_job()


@pytest.mark.slow
def test_slurm_is_asked_now_and_then(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(Owner, "has_lost_its_job", lambda _: asked.append(0) is not None)
    claim_launch(run, {}, ELSEWHERE)
    refuse_living_owner(run)
    assert len(asked) == 1
    monkeypatch.setattr(Owner, "has_lost_its_job", lambda _: True)
    monkeypatch.setenv(TIMEOUT, "600")
    assert claim_launch(run, {}, ELSEWHERE).name == "0002"


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "1e9", "0.05"])
def test_the_timeout_is_a_number_of_seconds(run: RunFolder, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    claim_launch(run, {}, ELSEWHERE)
    monkeypatch.setenv(TIMEOUT, text)
    with pytest.raises(TrainyardError, match=TIMEOUT):
        refuse_living_owner(run)


def test_a_lost_answer_is_no_lost_claim(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def lossy(self: Path, target: Path) -> Path:
        rename(self, target)
        raise FileNotFoundError(2, "sent a second time", str(self))

    monkeypatch.setattr(Path, "rename", lossy)
    assert claim_launch(run, {}, ELSEWHERE).name == "0001"


def test_a_beginning_is_seen(run: RunFolder) -> None:
    launch = claim_launch(run, {}, ELSEWHERE)
    assert not has_begun(launch)
    record_beginning(launch, Beginning(1, 0, None))
    assert has_begun(launch)


def test_a_heartbeat_that_cannot_be_written_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_BEATS", 0)
    launch = tmp_path / "launch"
    beating = Heartbeat(launch)
    assert "another launch may take" in str(beating.beat())
    assert beating.beat() is None
    launch.mkdir()
    (launch / HEARTBEAT).write_bytes(beat_text(0))
    inode = (launch / HEARTBEAT).stat().st_ino
    assert beating.beat() is None
    assert (launch / HEARTBEAT).read_bytes()[:21] == beat_text(3)[:21]
    assert (launch / HEARTBEAT).stat().st_ino == inode
    assert started_at(os.getpid()) and started_at(2**22 + 1) is None


@contextmanager
def _beating(launch: Path) -> Iterator[None]:
    """A launch's heartbeat, fifty times a second; who looks has time to see it, however busy the machine is."""
    over, begun = threading.Event(), threading.Event()

    def beat() -> None:
        count = 1000
        while not over.wait(0.02):
            count += 1
            with (launch / HEARTBEAT).open("r+b") as file:
                file.write(beat_text(count))
            begun.set()

    thread = threading.Thread(target=beat)
    thread.start()
    begun.wait()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(TIMEOUT, "60")
            yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_random_starts_kills_and_pauses() -> None:
    """The short form of `python -m tests.torture.owners`."""
    told = torture(rounds=4, seed=0)
    assert told.problems == []
    assert told.refused and told.taken_over and told.ended
