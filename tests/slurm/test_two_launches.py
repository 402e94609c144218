"""Two launches of one run, for real: on this machine, and on a cluster one of whose nodes is cut off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import read_beginnings
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from tests.slurm.cluster import Cluster, environment_without_settings, reason_not_to_start, wait_until
from tests.small_training import SmallData, overrides

SCRIPT = CHECKOUT / "train/tr0-stdlib-gpt/tr0a-4M-stdlib.slurm"
RUN = "tr0a-4M-stdlib"
END_SECONDS = 240


def arguments(small_data: SmallData, steps: int, every: int) -> list[str]:
    return overrides(
        parallel__tensor=1, parallel__processes_per_node=1, training__steps=steps, training__global_batch_size=4,
        training__micro_batch_size=4, data__path=small_data.folder / "text",
        data__tokenizer=small_data.folder / "tokenizer", data__split="80,20", data__max_epochs=2000,
        data__sequence_length=32, checkpoint__every_steps=every, logging__every_steps=1, evaluation="null",
    )  # fmt: skip


@contextmanager
def launched(
    words: list[str], runs: Path, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "TRAINYARD_RUNS": str(runs),
        "TRAINYARD_OWNER_TIMEOUT": "3",
        "TRAINYARD_VENV": sys.prefix,
        **(env or {}),
    }
    environment = {**environment_without_settings(), **settings, **(env or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *words], cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        for pid in family(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def family(pid: int) -> list[int]:
    """A process that still lives, and all that came from it, from any of its threads."""
    try:
        files = list(Path(f"/proc/{pid}/task").glob("*/children"))
        found = [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []
    return [pid, *(each for child in found for each in family(child))] if files else []


def says(log: Path, text: str) -> None:
    wait_until(lambda: text in log.read_text(), 90, f"{text!r} in {log}")


@pytest.mark.slow
def test_a_living_launch_keeps_the_run_and_one_that_stood_still_saves_and_yields(
    small_data: SmallData, tmp_path: Path
) -> None:
    words, runs = arguments(small_data, 100_000, 100_000), tmp_path / "runs"
    run = RunFolder(runs / RUN)
    logs = [tmp_path / f"{number}.log" for number in range(5)]
    with launched(words, runs, logs[0]) as first:
        says(logs[0], " 3/100000 loss ")
        with launched(words, runs, logs[1]) as killed:  # one that is killed at once
            time.sleep(0.3)
            os.killpg(killed.pid, signal.SIGKILL)
        with launched([*words, "--no.such key"], runs, logs[1]) as failing, launched(words, runs, logs[2]) as second:
            assert (failing.wait(90), second.wait(90)) == (2, 2)
        assert "launch 0001 of tr0a-4M-stdlib is at work (process" in logs[2].read_text()
        assert [path.name for path in run.launches.iterdir()] == ["0001"]
        assert first.poll() is None and not list_checkpoints(run.checkpoints)

        processes = family(first.pid)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        with launched(words, runs, logs[3]) as third:
            wait_until(lambda: (run.launches / "0002").exists(), 90, "the second launch's claim")
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
            assert first.wait(90) == 1
            assert "has taken the run over from 0001" in logs[0].read_text()
            saved = [path.name for path in list_checkpoints(run.checkpoints)]
            says(logs[3], f"resuming from {saved[0]}")
            third.send_signal(signal.SIGUSR1)
            assert third.wait(90) == 75
    assert len(saved) == 1
    assert [each.launch for each in read_beginnings(run)] == [1, 2]


@pytest.mark.slow
def test_of_three_at_once_one_trains(small_data: SmallData, tmp_path: Path) -> None:
    words, runs = [*arguments(small_data, 4, 4), "--schedule.warmup", "1"], tmp_path / "runs"
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    with launched(words, runs, logs[0]) as a, launched(words, runs, logs[1]) as b, launched(words, runs, logs[2]) as c:
        codes = sorted(process.wait(120) for process in (a, b, c))
    assert codes == [0, 2, 2], [log.read_text() for log in logs]
    assert [path.name for path in (runs / RUN / "launches").iterdir()] == ["0001"]


@pytest.mark.slurm
def test_a_second_job_is_refused_and_one_whose_node_was_cut_off_takes_its_run_over_from_itself(
    small_data: SmallData, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if reason := reason_not_to_start():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("cut"))  # a short path: sockets lie in it
    try:
        words = [*arguments(small_data, 100_000, 50), "--checkpoint.keep_last", "2"]  # no machine comes to its end here
        job, double = (
            cluster.sbatch(
                SCRIPT, *words, cwd=CHECKOUT, env={"TRAINYARD_RUNS": str(tmp_path / "runs")},
                options=("--nodes=1", f"--nodelist={node}", f"--output={tmp_path}/%j.log", *options),
            )
            for node, options in (("node1", ()), ("node2", ("--hold",)))
        )  # fmt: skip
        cluster.wait_for_log(job, "saved step-0000000050", timeout=END_SECONDS)
        cluster.run("scontrol", "release", str(double))
        assert cluster.wait(double, timeout=END_SECONDS) == ("FAILED", 2), cluster.log(double)
        assert f"launch 0001 of {RUN} is at work (job {job} on node1" in cluster.log(double)
        cluster.cut("node1")
        cluster.run("scontrol", "update", f"JobId={job}", "NodeList=", "StartTime=now")
        cluster.wait_for_log(job, "launch 0002", timeout=END_SECONDS)
        assert "shows no sign of life" not in cluster.log(job)  # SLURM started the same job once more: no wait
        cluster.wait_for_log(job, "resuming from step-", timeout=END_SECONDS)
        cluster.cancel(job, "--batch", "--signal=USR1")
        assert cluster.wait(job, timeout=END_SECONDS) == ("FAILED", 75), cluster.log(job)
    finally:
        cluster.stop()
    first, second = read_beginnings(RunFolder(tmp_path / "runs" / RUN))
    assert (first.launch, first.step, second.launch) == (1, 0, 2) and second.step >= 50
