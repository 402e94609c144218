"""Submissions: whatever is cut in between, one job works."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.submission.fence import fenced
from megatron_patches.submission.intent import INTENT, Intent, all_intents, current_intent, submissions_root
from megatron_patches.submission.queue import QueueUnknown
from megatron_patches.submission.submit import submit, withdraw
from tests.slurm.cluster import Cluster, reason_not_to_start, wait_until

# A controller made of files: jobs/ID holds the path of a job's script, of which it keeps a copy, as SLURM does. How it
# takes a request is its mood: at once, slowly, late (behind its sender's back), with an answer that is lost.
_SBATCH = """#!/bin/sh
take() {
  id=1; until mkdir "$CONTROLLER/ids/$id" 2> /dev/null; do id=$((id + 1)); done
  cp "$script" "$CONTROLLER/ids/$id/script" || exit 1
  echo "$script" > "$CONTROLLER/jobs/.$id" && mv "$CONTROLLER/jobs/.$id" "$CONTROLLER/jobs/$id"
}
for word; do case $word in -*) ;; *) script=$word; break ;; esac; done
echo "$*" >> "$CONTROLLER/calls"
case $(cat "$CONTROLLER/mood") in
  at-once) take; echo $id ;;
  slow) sleep 0.03; take; sleep 0.03; echo $id ;;
  lost) take; echo "sbatch: error: connection reset" >&2; exit 1 ;;
  late) (sleep 0.05; take) > /dev/null 2>&1 & sleep 0.01; echo "sbatch: error: timed out" >&2; exit 1 ;;
  refused) echo "sbatch: error: Invalid partition name" >&2; exit 1 ;;
  silent) take; echo "Welcome" ;;
esac
"""
_SQUEUE = """#!/bin/sh
[ "$(cat "$CONTROLLER/mood")" != unknown ] || { echo "Unable to contact slurm controller" >&2; exit 1; }
for job in "$CONTROLLER/jobs"/*; do [ -f "$job" ] && echo "${job##*/} PENDING $(cat "$job")"; done
exit 0
"""
_SCANCEL = """#!/bin/sh
for job; do rm -f "$CONTROLLER/jobs/$job"; done
"""


class Controller:
    """The queue of the stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ids", "jobs"):
            (folder / name).mkdir(parents=True)
        self.mood("at-once")

    def mood(self, mood: str) -> None:
        """How it takes the next requests."""
        (self.folder / "mood").write_text(mood)

    def jobs(self) -> dict[int, str]:
        """Scripts of the jobs that wait."""
        found = [path for path in (self.folder / "jobs").iterdir() if path.name.isdecimal()]
        return {int(path.name): path.read_text().strip() for path in found}

    def run(self, job: int) -> subprocess.CompletedProcess[str]:
        """Start a job, as SLURM does."""
        script = str(self.folder / "ids" / str(job) / "script")
        return subprocess.run(
            ["sh", script], env={**os.environ, "SLURM_JOB_ID": str(job)}, capture_output=True, text=True, check=False
        )

    def calls(self) -> list[str]:
        """What sbatch was called with."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": _SBATCH, "squeue": _SQUEUE, "scancel": _SCANCEL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CONTROLLER", str(tmp_path / "controller"))
    monkeypatch.setenv("TRAINYARD_SUBMISSIONS", str(tmp_path / "submissions"))
    monkeypatch.chdir(tmp_path)
    return Controller(tmp_path / "controller")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.slurm"
    path.write_text(f"#!/bin/bash\n#SBATCH --nodes=1\n\necho $SLURM_JOB_ID >> {tmp_path}/worked\n")
    return path


@pytest.mark.slow
class TestSubmit:
    def test_the_same_call_again_submits_nothing(self, controller: Controller, script: Path) -> None:
        first = submit(script, ["--x", "a b"], ["--nodes=2"])
        again = submit(script, ["--x", "a b"], ["--nodes=2"])
        assert (first.was_there, again.was_there, first.job) == (False, True, again.job)
        [call] = controller.calls()
        assert call.startswith("--parsable --nodes=2 ") and call.endswith("/job.slurm --x a b")
        assert submit(script, ["--x", "b"]).job != first.job

    def test_another_command_under_the_same_key_is_refused(self, controller: Controller, script: Path) -> None:
        submit(script, key="mine")
        with pytest.raises(Refused, match="mine is that of another submission"):
            submit(script, ["--more"], key="mine")

    def test_a_refusal_leaves_the_key_free(self, controller: Controller, script: Path) -> None:
        controller.mood("refused")
        with pytest.raises(Refused, match="Invalid partition name"):
            submit(script, key="mine")
        closed = current_intent(submissions_root(), "mine")
        assert closed is not None and closed.is_withdrawn()
        controller.mood("at-once")
        assert not submit(script, key="mine").was_there

    @pytest.mark.parametrize("mood", ["lost", "silent"])
    def test_a_job_without_an_answer_is_found(self, controller: Controller, script: Path, mood: str) -> None:
        controller.mood(mood)
        assert [submit(script).job] == list(controller.jobs())

    def test_a_queue_that_does_not_answer(self, controller: Controller, script: Path) -> None:
        done = submit(script, key="mine")
        found = current_intent(submissions_root(), "mine")
        assert isinstance(found, Intent)
        (found.place / "job").unlink()  # as if its sender had been killed
        controller.mood("unknown")
        with pytest.raises(QueueUnknown, match="submits nothing twice"):
            submit(script, key="mine")
        controller.mood("at-once")
        assert submit(script, key="mine").job == done.job

    def test_a_double_does_nothing(self, controller: Controller, script: Path, tmp_path: Path) -> None:
        done = submit(script)
        shutil.copytree(controller.folder / "ids" / str(done.job), controller.folder / "ids" / "77")
        double = controller.run(77)
        assert (double.returncode, "job 77 does nothing" in double.stderr) == (0, True)
        for _ in range(2):  # the second time is a requeue
            assert controller.run(done.job).returncode == 0
        assert (tmp_path / "worked").read_text().split() == [str(done.job)] * 2

    def test_what_is_withdrawn_does_nothing_and_frees_its_key(self, controller: Controller, script: Path) -> None:
        done = submit(script, key="mine")
        assert withdraw("mine") == done.job
        assert controller.jobs() == {}
        late = controller.run(done.job)
        assert (late.returncode, "was withdrawn" in late.stderr) == (2, True)
        assert submit(script, key="mine").job != done.job
        with pytest.raises(Missing, match="tools/submit --list"):
            withdraw("yours")

    def test_a_removal_that_is_cut_lets_no_job_in(
        self, controller: Controller, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It took the record of a withdrawn intent, and a job of that intent comes late."""
        controller.mood("refused")
        with pytest.raises(Refused):
            submit(script, key="mine")
        withdrawn = current_intent(submissions_root(), "mine")
        assert withdrawn is not None
        (controller.folder / "ids" / "66").mkdir()
        shutil.copy(withdrawn.script, controller.folder / "ids" / "66" / "script")

        def cut(path: Path, ignore_errors: bool = False) -> None:
            for record in Path(path).rglob("job"):
                record.unlink()
            raise KeyboardInterrupt

        controller.mood("at-once")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(shutil, "rmtree", cut)
            submit(script, key="mine")
        late = controller.run(66)
        assert (late.returncode, "was withdrawn" in late.stderr) == (2, True)
        assert not (tmp_path / "worked").exists()

    @pytest.mark.parametrize("content", ["", "[]", '{"token": "x"}', "{" * 5000])
    def test_a_damaged_intent(self, controller: Controller, script: Path, content: str) -> None:
        submit(script, key="mine")
        (submissions_root() / "mine" / "0001" / INTENT).write_text(content)
        with pytest.raises(Damaged, match="squeue"):
            submit(script, key="mine")
        assert [type(each) for each in all_intents(submissions_root())] == [Damaged]

    def test_what_cannot_be_submitted(
        self, controller: Controller, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(TrainyardError, match="cannot be the name"):
            submit(script, key="a/b")
        with pytest.raises(Missing, match=r"nowhere\.slurm"):
            submit(tmp_path / "nowhere.slurm")
        (tmp_path / "x.py").write_text("#!/usr/bin/env python3\n")
        with pytest.raises(Refused, match="POSIX shell"):
            submit(tmp_path / "x.py")
        with pytest.raises(Refused, match="--wrap"):
            submit(script, options=["--wrap=true"])
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(Missing, match="sbatch"):
            submit(script)


def test_the_fence_stands_behind_the_options(tmp_path: Path) -> None:
    text = b"#!/bin/bash\n#SBATCH --nodes=2\n# why\n#SBATCH --time=1\n\nset -u\n#SBATCH --late=1\n"
    lines = fenced(text, "k", tmp_path, tmp_path / "token").split(b"\n")
    assert lines[:5] == text.split(b"\n")[:5]
    assert b"submission" in lines[5] and lines[-3:] == [b"set -u", b"#SBATCH --late=1", b""]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_random_instants(controller: Controller, script: Path, tmp_path: Path, seed: int) -> None:
    """Whoever submits is killed at any instant and starts again until it is told a job: one job works, and is that."""
    draw, kills, number = random.Random(seed), 0, 0
    while kills < 100:
        number += 1
        key, told = f"key-{number}", tmp_path / f"told-{number}"
        for _ in range(30):
            controller.mood(draw.choice(["at-once", "slow", "lost", "late", "unknown"]))
            child = multiprocessing.get_context("fork").Process(target=_submit, args=(script, key, told))
            child.start()
            if draw.random() < 0.6:
                time.sleep(draw.random() * 0.06)
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            child.join()
            if told.exists():
                break
        else:
            controller.mood("at-once")
            _tell(script, key, told)
    time.sleep(0.2)  # what is late comes in
    ours = {int((tmp_path / f"told-{each}").read_text()) for each in range(1, number + 1)}
    assert len(ours) == number
    for job in draw.sample(sorted(controller.jobs()), len(controller.jobs())):
        assert controller.run(job).returncode == 0 or job not in ours
    worked = [int(job) for job in (tmp_path / "worked").read_text().split()]
    assert sorted(worked) == sorted(ours)


def _submit(script: Path, key: str, told: Path) -> None:
    try:
        _tell(script, key, told)
    except TrainyardError:
        os._exit(2)
    os._exit(0)


def _tell(script: Path, key: str, told: Path) -> None:
    job = submit(script, key=key).job
    draft = told.with_suffix(f".{os.getpid()}")
    draft.write_text(str(job))
    draft.rename(told)


@pytest.mark.slurm
def test_on_a_cluster(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A killed sender, and a double that is put into the queue by hand; `tools/submit` as people call it."""
    if reason := reason_not_to_start():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("one"), nodes=1)  # a short path: sockets lie in it
    try:
        call = _caller(cluster, tmp_path)
        options = f"#SBATCH --job-name=mine --output={tmp_path}/%j.log"
        (tmp_path / "job.slurm").write_text(f"#!/bin/bash\n{options}\necho $1 $SLURM_JOB_ID >> {tmp_path}/worked\n")
        first = call("--begin=now+2", "job.slurm", "argument")
        assert first.startswith("job ") and "is submitted" in first
        job = int(first.split()[1])
        assert f"job {job} was submitted already" in call("--begin=now+2", "job.slurm", "argument")
        assert str(job) in call("--list")
        [intent] = all_intents(tmp_path / "submissions")
        assert isinstance(intent, Intent) and intent.command.arguments == ("argument",)
        double = cluster.sbatch(intent.script, "argument", cwd=tmp_path)
        assert cluster.wait(double) == ("COMPLETED", 0) and "does nothing" in cluster.log(double)
        assert cluster.wait(job) == ("COMPLETED", 0) and cluster.describe(job)["JobName"] == "mine"
        (intent.place / "job").unlink()  # as if the sender had been killed behind sbatch
        assert f"job {job} was submitted already" in call("--begin=now+2", "job.slurm", "argument")
        wait_until((tmp_path / "worked").exists, 10, "the job's work")
        assert (tmp_path / "worked").read_text().split() == ["argument", str(job)]
    finally:
        cluster.stop()


def _caller(cluster: Cluster, folder: Path) -> Callable[..., str]:
    verb = str(Path(__file__).resolve().parents[3] / "tools" / "submit")

    def call(*words: str) -> str:
        return cluster.run(verb, *words, cwd=folder, env={"TRAINYARD_SUBMISSIONS": str(folder / "submissions")}).stdout

    return call
