"""No process of a launch outlives a kill of its launcher or of its node: 20 instants here, and on a real cluster."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from megatron_patches.artefacts.folders import inspect, list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from slurm.parent import command_ending_with_it, ending_with_this_process
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.orphans import (
    GONE_SECONDS,
    Marked,
    StubbornCheckout,
    is_launcher,
    is_node,
    is_real_node,
    left_after_kill,
)
from tests.slurm.test_two_launches import RUN, arguments, family, launched, says
from tests.small_training import SmallData

INSTANTS = [*(("launcher", 0.09 * number) for number in range(12)), *(("node", 0.05 * number) for number in range(8))]
"""delays in parts of what a launch takes until its ranks run, which differs from machine to machine"""


@pytest.mark.slow
def test_nothing_is_left_of_a_launch_whose_launcher_or_node_is_killed(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    started = time.monotonic()
    assert left_after_kill(StubbornCheckout(whole), "launcher", None) == {}
    seconds = time.monotonic() - started

    def left(number: int) -> dict[int, str]:
        victim, share = INSTANTS[number]
        return left_after_kill(StubbornCheckout(tmp_path / str(number)), victim, share * seconds)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(left, range(len(INSTANTS))))
    assert found == [{}] * len(INSTANTS)
    assert StubbornCheckout.ranks_of(whole) == 3 and StubbornCheckout.ranks_of(tmp_path / "0") == 0


@pytest.mark.slow
def test_without_the_request_a_killed_node_leaves_its_ranks(tmp_path: Path) -> None:
    """The tests above see what they look for."""
    checkout = StubbornCheckout(tmp_path / "checkout")
    (checkout.work / "sitecustomize.py").write_text(
        "import slurm.parent\nslurm.parent.ask_for_signal = lambda number: None\n"
    )
    marked = Marked()
    node = subprocess.Popen(
        [sys.executable, checkout.root / "megatron_patches/launch/node.py", checkout.work, *_ALONE],
        env={**os.environ, **marked.environment},
    )
    try:
        wait_until(lambda: checkout.ranks_started() == 1, 60, "the rank's start")
        node.kill()
        node.wait()
        time.sleep(0.5)
        assert any("stubborn" in line for line in marked.processes().values())
    finally:
        marked.kill()


_ALONE = ["--nodes", "1", "--node-rank", "0", "--processes", "1", "--host", "127.0.0.1", "--port", "1"]


@pytest.mark.slow
def test_a_child_whose_parent_died_before_it_asked_ends(tmp_path: Path) -> None:
    """Between fork and request: the child finds another parent than it was made by."""
    started = tmp_path / "started"
    prepare = ending_with_this_process()  # made here, and called where this process is no parent
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            prepare()
            started.touch()
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.2)
    assert not started.exists()
    assert subprocess.run(command_ending_with_it(["sh", "-c", "exit 7"])).returncode == 7


class TestOnACluster:
    """Two nodes of three ranks each; the job itself goes on, as that of an salloc shell does."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> StubbornCheckout:
        return StubbornCheckout(tmp_path / "checkout")

    @pytest.fixture
    def marked(self) -> Marked:
        return Marked()

    def start(self, cluster: Cluster, checkout: StubbornCheckout, marked: Marked) -> int:
        job = checkout.root / "job.sh"
        job.write_text(f"#!/bin/bash\nbash {checkout.script} &\nsleep 120 & wait\n")
        environment = {"TRAINYARD_VENV": "", **marked.environment}
        return cluster.sbatch(job, cwd=checkout.root, env=environment, options=["--nodes=2", "--output=%j.log"])

    def ends(self, marked: Marked, seconds: float = GONE_SECONDS) -> None:
        def none_left() -> bool:
            lines = marked.processes().values()
            return not any(is_node(line) or "stubborn" in line or "srun" in line for line in lines)

        wait_until(none_left, seconds, f"the end of {marked.processes()}")

    @pytest.mark.slurm
    @pytest.mark.parametrize("when", ["srun starts", "tasks start", "ranks run"])
    def test_the_launcher_is_killed(
        self, cluster: Cluster, checkout: StubbornCheckout, marked: Marked, when: str
    ) -> None:
        job = self.start(cluster, checkout, marked)
        try:
            launcher = marked.find(is_launcher)
            if when == "srun starts":
                marked.find(lambda line: line.startswith("srun "))
            elif when == "tasks start":
                marked.find(is_node)
            else:
                wait_until(lambda: checkout.ranks_started() == 6, 60, "six ranks")
            os.kill(launcher, signal.SIGKILL)
            if when == "srun starts":
                time.sleep(2)  # what srun had asked for may still come about
            self.ends(marked)
        finally:
            cluster.cancel(job)
            marked.kill()

    @pytest.mark.slurm
    def test_one_node_is_killed(self, cluster: Cluster, checkout: StubbornCheckout, marked: Marked) -> None:
        """Its ranks end at once; the other node's, which end by srun, have SLURM's KillWait to save."""
        job = self.start(cluster, checkout, marked)
        try:
            wait_until(lambda: checkout.ranks_started() == 6, 60, "six ranks")
            node = marked.find(is_node)
            ranks = family(node)
            assert len(ranks) > 3, ranks
            os.kill(node, signal.SIGKILL)
            wait_until(lambda: not set(ranks) & marked.processes().keys(), GONE_SECONDS, "the end of its ranks")
            self.ends(marked, 3 * GONE_SECONDS)
        finally:
            cluster.cancel(job)
            marked.kill()


@pytest.mark.slow
def test_ranks_that_train_save_themselves_when_the_launcher_is_killed(small_data: SmallData, tmp_path: Path) -> None:
    words, runs = [*arguments(small_data, 100_000, 100_000), "--parallel.tensor", "2"], tmp_path / "runs"
    marked, run = Marked(), RunFolder(runs / RUN)
    with launched(words, runs, tmp_path / "1.log", marked.environment):
        says(tmp_path / "1.log", " 3/100000 loss ")
        os.kill(marked.find(is_launcher), signal.SIGKILL)
        wait_until(lambda: not marked.processes(), GONE_SECONDS, f"the end of {marked.processes()}")
    (saved,) = list_checkpoints(run.checkpoints)
    assert not inspect(saved).problems
    with launched(words, runs, tmp_path / "2.log", marked.environment):  # and nothing is waited for
        says(tmp_path / "2.log", f"resuming from {saved.name}")
        os.kill(marked.find(is_real_node), signal.SIGKILL)
        wait_until(lambda: not marked.processes(), GONE_SECONDS, f"the end of {marked.processes()}")
