"""Results of evaluations: what others wrote into a run's folder, and what stands in their files' places."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

from megatron_patches.artefacts.evaluations.best import best_evaluated
from megatron_patches.artefacts.evaluations.last_word import LAST_WORD, last_word
from megatron_patches.artefacts.evaluations.present import on_present_branch
from megatron_patches.artefacts.evaluations.result import TaskResult, read_items, read_result
from megatron_patches.artefacts.evaluations.sealing import mark
from megatron_patches.artefacts.evaluations.shelf import is_sealed, list_evaluations
from megatron_patches.artefacts.inventory.artefact import Artefact, read_artefact
from megatron_patches.artefacts.manifest import Status, parse_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_entries, odd_json, odd_text
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_evaluations import evaluate, make_items, make_result

NewPlace = Callable[[], Place]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the disk: that is not what is odd here."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


_RESULT = {
    "format": 1, "task": "mmlu", "label": "mmlu", "version": "1", "definition": "d" * 64, "shots": 0, "examples": 9,
    "data": [{"name": "mmlu.csv", "sha256": "0" * 64, "rows": 9}], "through": "export", "run": RUN, "step": 100,
    "checkpoint": "1" * 64, "seconds": 1.0, "date": "2026-01-01T00:00:00+00:00", "versions": {"lm-eval": "0"},
    "metrics": {"acc": {"value": 0.5, "standard_error": 0.1, "higher_is_better": True, "chance": 0.25}},
    "parts": {"anatomy": {"examples": 9, "metrics": {"acc": {"value": 0.5}}}},
}  # fmt: skip


@cases(150)
@given(content=odd_json(_RESULT))
def test_a_result(new_place: NewPlace, content: bytes) -> None:
    path = new_place().inside / "mmlu.json"
    path.write_bytes(content)
    found = attempt(lambda: read_result(path, 100))
    if isinstance(found, TaskResult):
        assert (found.label, found.step) == ("mmlu", 100)
    else:
        assert "mmlu.json" in str(found)


@cases(100)
@given(content=odd_text("".join(json.dumps(each.model_dump(exclude_none=True)) + "\n" for each in make_items())))
def test_items(new_place: NewPlace, content: bytes) -> None:
    path = new_place().inside / "mmlu.items.jsonl"
    path.write_bytes(content)
    found = attempt(lambda: read_items(path))
    assert not isinstance(found, TrainyardError) or "mmlu.items.jsonl" in str(found)


_WORD = {
    "checkpoints": ["1" * 64],
    "status": {"state": "invalid", "reason": "a spike", "date": "2026-01-01T00:00:00+00:00", "cause": None},
}


@cases(60)
@given(content=odd_json(_WORD))
def test_what_was_said_last_of_an_evaluation(new_place: NewPlace, content: bytes) -> None:
    folder = new_place().inside
    (folder / LAST_WORD).write_bytes(content)
    found = attempt(lambda: last_word(folder, ["1" * 64]))
    assert LAST_WORD in str(found) if isinstance(found, TrainyardError) else isinstance(found, (Status, type(None)))


@cases(10)
@given(put=odd_entries())
def test_what_stands_in_place_of_a_word(new_place: NewPlace, put: Callable[[Place, Path], None]) -> None:
    place = new_place()
    result = make_result(make_checkpoint(place.inside, 100), "mmlu")
    folder = evaluate(place.inside, result, items=0)
    put(place, folder / LAST_WORD)
    assert isinstance(attempt(lambda: evaluate(place.inside, result, items=0)), (Path, TrainyardError))
    attempt(lambda: mark(folder, Status(state="invalid", reason="a spike")))
    place.check()


_FACTS = {
    "run": RUN, "step": 100, "tokens": 128,
    "results": {"mmlu": {"acc": 0.5}, "mmlu.anatomy": {"acc": 0.5}},
    "tasks": {"mmlu": {"version": "1", "shots": 0}},
    "origin": {"id": "1" * 64, "run": RUN, "step": 100, "launch": "0001", "run_id": "2" * 64, "branch": [["0001", 0]]},
}  # fmt: skip


@cases(150)
@given(content=odd_json(_FACTS))
def test_facts_of_an_evaluation(new_place: NewPlace, content: bytes) -> None:
    path = new_place().inside / "manifest.json"
    manifest = {"id": "0" * 64, "kind": "evaluation", "created": "2026", "parents": ["1" * 64], "files": []}
    path.write_bytes(json.dumps(manifest)[:-1].encode() + b', "facts": ' + content + b"}")
    found = attempt(lambda: read_artefact(path, RUN))
    if isinstance(found, Artefact):
        assert all(isinstance(value, (int, float)) for value in (found.metrics | found.parts).values())
    else:
        assert "manifest.json" in str(found)


@pytest.mark.parametrize("name", ["", "step-0000000100", "step-0000000100/mmlu.json", "step-0000000100/manifest.json"])
@cases(10)
@given(put=odd_entries())
def test_what_stands_where_an_evaluation_is_expected(
    new_place: NewPlace, name: str, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    run = RunFolder(place.inside / RUN)
    folder = evaluate(place.inside, make_result(make_checkpoint(place.inside, 100), "mmlu"), items=0)
    evaluate(place.inside, make_result(make_checkpoint(place.inside, 200), "mmlu"), items=0)
    put(place, folder.parent / name if name else folder.parent)
    problems: list[str] = []
    found = attempt(lambda: list_evaluations(run, problems))
    assert not isinstance(found, TrainyardError)
    assert all(problem.strip() for problem in problems)
    if name:
        assert 200 in [each.step for each in found], "the odd one hid another"
    for each in found:
        if each.step == 100:
            assert not is_sealed(each)
    attempt(lambda: best_evaluated(run, "mmlu.acc"))
    attempt(lambda: on_present_branch(run, found))
    if (run.path / "evals").is_symlink():
        return  # its owner may have it elsewhere, and writes there
    again = attempt(lambda: evaluate(place.inside, make_result(make_checkpoint(place.inside, 100), "mmlu"), items=0))
    assert isinstance(again, (Path, TrainyardError))
    place.check()


def test_the_cases_begin_from_what_is_right(tmp_path: Path) -> None:
    (tmp_path / "mmlu.json").write_text(json.dumps(_RESULT))
    assert read_result(tmp_path / "mmlu.json", 100).metrics["acc"].value == 0.5
    folder = evaluate(tmp_path, make_result(make_checkpoint(tmp_path, 100), "mmlu"))
    assert parse_manifest((folder / "manifest.json").read_bytes(), "origin").kind == "evaluation"
