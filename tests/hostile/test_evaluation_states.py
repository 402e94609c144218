"""States of evaluations, owners of exports: what others wrote into a run's folder, and what stands in their places."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

from megatron_patches.artefacts.evaluations.processes import here
from megatron_patches.artefacts.evaluations.states import Claim, State, claim, read_states, states_folder
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.evaluation.exports import EVALUATING, remove_leftovers
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_entries, odd_json
from tests.small_artefacts import RUN

NewPlace = Callable[[], Place]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the disk, for another process, or for a cluster: that is not what is odd here."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("megatron_patches.artefacts.evaluations.states._TRIES", 2)
    monkeypatch.setattr("megatron_patches.artefacts.evaluations.states._PAUSE", 0)
    monkeypatch.setattr("megatron_patches.artefacts.evaluations.processes.living_jobs", lambda: {"7_1"})


_STATE = {
    "format": 1, "state": "running", "since": "2026-01-01T00:00:00+00:00", "message": "", "host": "node7", "pid": 77,
    "job": "7_1", "by": {**here(), "host": "node7", "pid": 77, "slurm": "7_1"}, "token": "aa",
}  # fmt: skip


@cases(150)
@given(content=odd_json(_STATE))
def test_a_state(new_place: NewPlace, content: bytes) -> None:
    run = RunFolder(new_place().inside / RUN)
    path = states_folder(run, 100) / "mmlu.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    found = attempt(lambda: read_states(run))
    assert not isinstance(found, TrainyardError)
    [state] = found
    assert (state.step, state.label) == (100, "mmlu")
    taken = attempt(lambda: claim(run, 100, "mmlu"))
    assert isinstance(taken, Claim) == (state.state == "failed")
    assert isinstance(taken, (Claim, State))


def test_a_token_leads_nowhere(new_place: NewPlace) -> None:
    place = new_place()
    run = RunFolder(place.inside / RUN)
    path = states_folder(run, 100) / "mmlu.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**_STATE, "state": "failed", "token": "/../../../../outside"}))
    assert isinstance(claim(run, 100, "mmlu"), Claim)
    place.check()


@cases(50)
@given(put=odd_entries(huge=False))
@pytest.mark.parametrize("name", ["mmlu.json", ""])
def test_what_stands_in_its_place(new_place: NewPlace, name: str, put: Callable[[Place, Path], None]) -> None:
    place = new_place()
    run = RunFolder(place.inside / RUN)
    folder = states_folder(run, 100)
    folder.mkdir(parents=True)
    (folder / "mmlu.json").write_text(json.dumps(_STATE))
    put(place, folder / name if name else folder)
    found = attempt(lambda: read_states(run))
    assert not isinstance(found, TrainyardError)
    place.check()


@cases(100)
@given(content=odd_json(here()))
def test_an_owner_of_an_export(new_place: NewPlace, content: bytes) -> None:
    """Of this process, which lives, nothing is removed."""
    run = RunFolder(new_place().inside / RUN)
    folder = run.exports / EVALUATING / "step-0000000100-aa"
    folder.mkdir(parents=True)
    (folder.parent / f"{folder.name}.json").write_bytes(content)
    found = attempt(lambda: remove_leftovers(run))
    assert not isinstance(found, TrainyardError)
    if content == json.dumps(here()).encode():
        assert folder.is_dir()
