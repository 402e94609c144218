"""Evaluations that are asked for, at work, or failed."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.processes import here
from megatron_patches.artefacts.evaluations.states import (
    Claim,
    State,
    announce,
    claim,
    forget,
    read_state,
    read_states,
    states_folder,
)
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused
from slurm.heartbeat import started_at


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    (tmp_path / "tr900").mkdir()
    return RunFolder(tmp_path / "tr900")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what a stand-in for squeue tells, in its format `%i %F`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def tell(lines: str) -> None:
        program = tmp_path / "bin" / "squeue"
        program.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
        program.chmod(0o755)

    return tell


def claimed(run: RunFolder, step: int = 100, label: str = "hellaswag") -> Claim:
    found = claim(run, step, label)
    assert isinstance(found, Claim)
    return found


def change(run: RunFolder, label: str = "hellaswag", **facts: object) -> None:
    path = states_folder(run, 100) / f"{label}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def an_ended_process() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def end_its_process(run: RunFolder) -> None:
    path = states_folder(run, 100) / "hellaswag.json"
    path.write_text(json.dumps(of_an_ended_process(json.loads(path.read_text()))))


def of_an_ended_process(facts: dict[str, Any]) -> dict[str, Any]:
    pid = an_ended_process()
    return {**facts, "pid": pid, "by": {**facts["by"], "pid": pid}}


def test_one_of_two_has_it_and_the_other_learns_who(run: RunFolder) -> None:
    mine = claimed(run)
    other = claim(run, 100, "hellaswag")
    assert isinstance(other, State)
    assert (other.state, other.pid, other.describe()) == (
        "running",
        os.getpid(),
        f"process {os.getpid()} on {other.host}",
    )
    claimed(run, 100, "mmlu")
    claimed(run, 200, "hellaswag")
    mine.release()
    claimed(run)


def test_a_finished_one_leaves_nothing(run: RunFolder) -> None:
    claimed(run).release()
    assert read_states(run) == []
    assert list((run.path / "evals").iterdir()) == []


def test_a_failed_one_tells_why_and_can_be_taken_again(run: RunFolder) -> None:
    claimed(run).fail("out of memory\x1b[2J")
    [state] = read_states(run)
    assert (state.step, state.label, state.state, state.message) == (
        100,
        "hellaswag",
        "failed",
        r"out of memory\x1b[2J",
    )
    claimed(run).release()
    assert read_states(run) == []


def test_a_process_that_ended_without_a_word(run: RunFolder) -> None:
    claimed(run)
    end_its_process(run)
    [state] = read_states(run)
    assert (state.state, "ended without a word" in state.message, state.judged) == ("failed", True, True)
    claimed(run)
    assert [state.state for state in read_states(run)] == ["running"]


def test_a_number_that_was_given_to_another_process(run: RunFolder) -> None:
    by = dict(claimed(run).state.by)
    change(run, by={**by, "started": by["started"] - 1})
    assert [state.state for state in read_states(run)] == ["failed"]


def test_of_another_host_nothing_is_known_without_slurm(run: RunFolder) -> None:
    by = dict(claimed(run).state.by)
    change(run, host="node7", by={**by, "host": "node7", "boot": "another"}, pid=an_ended_process())
    [state] = read_states(run)
    assert (state.state, state.host) == ("running", "node7")
    assert isinstance(claim(run, 100, "hellaswag"), State)


@pytest.mark.parametrize(
    ("said", "state"),
    [(r"12_3 12\n", "running"), (r"12_[4-5] 12\n12_4 12\n", "failed"), ("", "failed"), (r"99 99\n", "failed")],
)
def test_of_another_host_slurm_says_whether_its_job_is_over(
    run: RunFolder, queue: Callable[[str], None], said: str, state: str
) -> None:
    by = dict(claimed(run).state.by)
    change(run, by={**by, "host": "node7", "boot": "another"}, job="12_3")
    queue(said)
    assert [each.state for each in read_states(run)] == [state]


def test_a_queue_that_does_not_answer_says_nothing(run: RunFolder, queue: Callable[[str], None]) -> None:
    by = dict(claimed(run).state.by)
    change(run, by={**by, "host": "node7", "boot": "another"}, job="12_3")
    queue("'; exit 1; echo '")
    assert [each.state for each in read_states(run)] == ["running"]


def test_jobs_of_other_users_are_not_in_the_queue_that_one_sees(run: RunFolder, queue: Callable[[str], None]) -> None:
    by = dict(claimed(run).state.by)
    change(run, by={**by, "host": "node7", "boot": "another", "user": os.getuid() + 1}, job="12_3")
    queue("")
    assert [each.state for each in read_states(run)] == ["running"]


def test_what_a_job_is_to_do_is_left_to_it(
    run: RunFolder, queue: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert announce(run, 100, "hellaswag", 12)
    queue(r"12_[0-3] 12\n")
    assert [(each.state, each.job) for each in read_states(run)] == [("pending", "12")]
    assert isinstance(claim(run, 100, "hellaswag"), State)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    assert claimed(run).state.job == "12_3"


def test_a_job_that_is_over_and_never_came_to_it(run: RunFolder, queue: Callable[[str], None]) -> None:
    announce(run, 100, "hellaswag", 12)
    queue(r"13 13\n")
    [state] = read_states(run)
    assert (state.state, state.message) == ("failed", "job 12 ended before it came to it")
    claimed(run)


def test_what_a_command_comes_to_is_left_to_it(run: RunFolder) -> None:
    assert announce(run, 100, "hellaswag") is not None
    assert [(each.state, each.pid) for each in read_states(run)] == [("pending", os.getpid())]
    by = here()
    other = subprocess.Popen(["sleep", "60"])
    try:
        change(run, pid=other.pid, by={**by, "pid": other.pid, "started": started_at(other.pid)})
        assert isinstance(claim(run, 100, "hellaswag"), State)
        assert isinstance(claim(run, 100, "hellaswag", "0123456789abcdef"), State)
        assert announce(run, 100, "hellaswag", 12) is None
        # a process that it started takes it over: at no time is it free for others
        [state] = read_states(run)
        taken = claim(run, 100, "hellaswag", state.token)
        assert isinstance(taken, Claim)
        forget(run, state)
        assert [each.state for each in read_states(run)] == ["running"]
        taken.release()
        announce(run, 100, "hellaswag")
        change(run, pid=other.pid, by={**by, "pid": other.pid, "started": started_at(other.pid)})
    finally:
        other.kill()
        other.wait()
    [state] = read_states(run)
    assert (state.state, "ended before it came to it" in state.message) == ("failed", True)
    claimed(run)


def test_what_this_process_comes_to_it_can_take(run: RunFolder) -> None:
    announce(run, 100, "hellaswag")
    claimed(run)


def test_what_is_at_work_is_not_made_pending(run: RunFolder) -> None:
    mine = claimed(run)
    assert not announce(run, 100, "hellaswag", 12)
    assert read_state(run, 100, "hellaswag") == mine.state


def test_a_job_that_slurm_started_once_more_takes_up_its_own(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    by = dict(claimed(run).state.by)
    change(run, by={**by, "host": "node7", "boot": "another"})
    assert isinstance(claim(run, 100, "hellaswag"), State)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    claimed(run)


def test_of_many_that_find_a_failed_one_one_has_it(run: RunFolder) -> None:
    winner = claimed(run)
    for _ in range(10):
        winner.fail("killed")
        start = Barrier(8)
        found: list[Claim | State] = []

        def take(start: Barrier = start, found: list[Claim | State] = found) -> None:
            start.wait()
            found.append(claim(run, 100, "hellaswag"))

        threads = [Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [each for each in found if isinstance(each, Claim)]
        assert [path.name for path in states_folder(run, 100).iterdir()] == ["hellaswag.json"]


def test_one_that_was_killed_while_it_took_over_is_no_hindrance(run: RunFolder) -> None:
    mine = claimed(run)
    mine.fail("killed")
    gone = json.loads((states_folder(run, 100) / "hellaswag.json").read_text())
    door = states_folder(run, 100) / f"hellaswag.json.after-{mine.state.token}"
    door.write_text(json.dumps(of_an_ended_process(gone)))
    claimed(run)


def test_one_of_another_machine_that_takes_over_and_never_ends(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_patches.artefacts.evaluations.states._TRIES", 2)
    mine = claimed(run)
    mine.fail("killed")
    door = states_folder(run, 100) / f"hellaswag.json.after-{mine.state.token}"
    door.write_text(json.dumps({**json.loads((door.parent / "hellaswag.json").read_text()), "by": {"host": "node7"}}))
    with pytest.raises(Refused, match=door.name):
        claim(run, 100, "hellaswag")


def test_another_ones_claim_is_neither_removed_nor_failed(run: RunFolder) -> None:
    mine = claimed(run)
    stranger = Claim(run, replace(mine.state, token="abc"))
    stranger.release()
    stranger.fail("not mine")
    assert read_states(run) == [mine.state]


@pytest.mark.parametrize("content", ["", "[]", '{"state": "done"}', '{"state": "running", "by": 3}'])
def test_one_that_cannot_be_read_says_so_and_is_replaced(run: RunFolder, content: str) -> None:
    claimed(run)
    (states_folder(run, 100) / "hellaswag.json").write_text(content)
    [state] = read_states(run)
    assert (state.state, "evaluate again" in state.message) == ("failed", True)
    claimed(run)
    assert [each.state for each in read_states(run)] == ["running"]
