"""Of all that is recorded of a failed launch, the first cause in time is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.events.failures import first_failure

KILLED = {"rank": 1, "node": "node2", "exit_code": 137, "text": "rank 1 on node2 was ended by SIGKILL"}


def at(second: float) -> str:
    return f"2026-01-01T00:00:{second:06.3f}+00:00"


def failure(rank: int | None, second: float, text: str) -> dict[str, Any]:
    known = {} if rank is None else {"rank": rank}
    return {"kind": "failure", "time": at(second), "step": 7, "error": "RuntimeError", "text": text, **known}


def told(folder: Path, ended: dict[str, Any] | None, *events: dict[str, Any]) -> str | None:
    if ended is not None:
        (folder / "failure.json").write_text(json.dumps(ended))
    return first_failure(folder, events)


GLOO = "gloo: Read error"


@pytest.mark.parametrize(("text", "line"), [("\n\n", "RuntimeError"), ("\n \nout of memory\nmore", "out of memory")])
def test_the_first_line_that_says_something_is_told(tmp_path: Path, text: str, line: str) -> None:
    assert told(tmp_path, None, failure(0, 1, text)) == f"at step 7: {line}"


@pytest.mark.parametrize("second", [9.5, 10.5], ids=["survivor first", "node first"])
def test_a_rank_that_was_killed_is_the_cause_of_what_the_others_say(tmp_path: Path, second: float) -> None:
    assert told(tmp_path, {**KILLED, "time": at(10)}, failure(0, second, GLOO)) == KILLED["text"]


def test_the_killed_one_may_be_rank_0(tmp_path: Path) -> None:
    ended = {**KILLED, "rank": 0, "time": at(10), "text": "rank 0 on node1 was ended by SIGKILL"}
    assert told(tmp_path, ended, failure(1, 10.2, GLOO), failure(2, 10.1, GLOO)) == ended["text"]


def test_a_rank_that_said_why_it_ended(tmp_path: Path) -> None:
    ended = {"rank": 1, "node": "n", "exit_code": 1, "time": at(10), "text": "rank 1 on n ended with code 1"}
    assert told(tmp_path, ended, failure(0, 9.9, GLOO), failure(1, 9.5, "loss is nan")) == "at step 7: loss is nan"


def test_what_another_rank_said_long_before(tmp_path: Path) -> None:
    """It raised and hung, and the others waited for it until they were ended."""
    assert told(tmp_path, {**KILLED, "time": at(50)}, failure(0, 9, "loss is nan")) == "at step 7: loss is nan"


def test_records_of_before(tmp_path: Path) -> None:
    ended = {"rank": 1, "node": "node2", "exit_code": 137}
    assert told(tmp_path, ended, failure(None, 10, GLOO)) == "rank 1 on node2 was ended by signal 9"
    ended = {"rank": 0, "node": "node2", "exit_code": 1}
    assert told(tmp_path, ended, failure(None, 10, "loss is nan")) == "at step 7: loss is nan"


def test_nothing_failed(tmp_path: Path) -> None:
    assert told(tmp_path, None) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rank": {}, "exit_code": "x", "time": 5}', "[" * 5000])
def test_a_record_that_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "failure.json").write_text(text)
    assert first_failure(tmp_path, [])
    assert first_failure(tmp_path, [failure(0, 10, GLOO)])


@pytest.mark.parametrize("odd", [{"text": ""}, {"text": None}, {"time": "never"}, {"step": "\x1b[2J"}, {"rank": []}])
def test_events_that_are_odd(tmp_path: Path, odd: dict[str, Any]) -> None:
    found = told(tmp_path, None, {**failure(0, 10, GLOO), **odd})
    assert found and "\x1b" not in found
