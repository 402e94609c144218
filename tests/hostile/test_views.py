"""A root of runs of which one is odd: every view shows the others, names the odd one, and ends."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.errors import TrainyardError
from megatron_patches.events.writing import EventWriter
from megatron_patches.foreign.printable import printable
from tests.hostile.canary import Place
from tests.hostile.cases import bounded, cases
from tests.hostile.oddities import ODD_TEXTS, odd_entries, odd_json, odd_text
from tests.small_artefacts import RUN, make_checkpoint
from tools.commands.checkpoint import command_line as checkpoint
from tools.commands.inventory import command_line as inventory
from tools.commands.runs import command_line as runs_app

NewPlace = Callable[[], Place]
GOOD = "tr901-28K-good"
QUESTIONS: list[tuple[Any, list[str]]] = [
    (inventory.app, ["list"]),
    (inventory.app, ["list", "--json"]),
    (inventory.app, ["find", "28K"]),
    (inventory.app, ["where", GOOD]),
    (inventory.app, ["show", GOOD]),
    (inventory.app, ["show", RUN]),
    (runs_app.app, ["show", RUN]),
    (runs_app.app, ["show", GOOD]),
    (checkpoint.app, ["list", RUN]),
    (checkpoint.app, ["list", GOOD]),
]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty columns, and no runs of train/: reading those takes a second, and they are not what is odd here."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("tools.run_views.views.scan_published", lambda checkout: ([], []))
    monkeypatch.setattr("tools.run_views.views.Inventory.files", {})


def _root(place: Place) -> Path:
    runs = place.inside / "runs"
    for name in (RUN, GOOD):
        for step in (100, 200):
            make_checkpoint(runs, step, run=name)
        (runs / name / "launches" / "0001").mkdir(parents=True)
        events = EventWriter(runs / name / "events", "0001", "train")
        events.write("start", step=0)
        events.write("step", step=1, tokens=128, loss=6.5, seconds=0.1)
        events.write("validation", step=1, loss=6.25, tokens=128)
        events.write("data", step=0, best_by="validation", sources=[{"name": "data", "datasets": {"count": 1}}])
        events.close()
        annotate(runs / name, Annotation("note", "looks good", by="someone"))
    return runs


def _ask(place: Place, application: Any, arguments: list[str]) -> str:
    """What a question prints; it must end as commands end, and print nothing that steers a terminal."""
    with pytest.MonkeyPatch.context() as patch, bounded(10):
        for name in ("runs", "data", "cache"):
            patch.setenv(f"TRAINYARD_{name.upper()}", str(place.inside / name))
        done = CliRunner().invoke(application, arguments, catch_exceptions=True)
    error = done.exception
    assert error is None or isinstance(error, SystemExit | TrainyardError), f"{arguments}: {error!r}"
    output = done.output + (str(error) if isinstance(error, TrainyardError) else "")
    if not isinstance(error, TrainyardError):
        assert printable(done.output, layout=True) == done.output, f"{arguments} prints controls"
    return output


def _look(place: Place, draw: st.DataObject) -> None:
    application, arguments = draw.draw(st.sampled_from(QUESTIONS))
    output = _ask(place, application, arguments)
    if arguments[-1] != RUN and application is inventory.app and arguments[0] in ("list", "find"):
        assert GOOD in output, f"{arguments} lost the good run: {output[:500]}"
    place.check()


@cases(60)
@given(
    data=st.data(),
    content=odd_text('{"kind": "failure", "time": "2026-01-01T00:00:00+00:00", "step": 1, "text": ""}\n'),
)
def test_an_odd_event(new_place: NewPlace, data: st.DataObject, content: bytes) -> None:
    place = new_place()
    with (_root(place) / RUN / "events" / "0001-train.jsonl").open("ab") as file:
        file.write(content)
    _look(place, data)


_NOTE = {"word": "note", "text": "x", "artefact": None, "metric": None, "value": None, "by": "a", "date": "2026-01-01"}


@cases(40)
@given(data=st.data(), content=odd_json(_NOTE))
def test_an_odd_note(new_place: NewPlace, data: st.DataObject, content: bytes) -> None:
    place = new_place()
    (_root(place) / RUN / "annotations" / "000009-abcdef.json").write_bytes(content)
    _look(place, data)


@cases(60)
@given(data=st.data(), put=odd_entries())
def test_odd_entries(new_place: NewPlace, data: st.DataObject, put: Callable[[Place, Path], None]) -> None:
    place = new_place()
    entries = sorted((_root(place) / RUN).rglob("*"))
    put(place, data.draw(st.sampled_from(entries)))
    _look(place, data)


@cases(40)
@given(data=st.data())
def test_an_odd_manifest(new_place: NewPlace, data: st.DataObject) -> None:
    place = new_place()
    path = _root(place) / RUN / "checkpoints" / "step-0000000100" / "manifest.json"
    path.write_bytes(data.draw(odd_json(json.loads(path.read_bytes()))))
    _look(place, data)


_NAMES = [os.fsencode(name) for name in ODD_TEXTS if "/" not in name and "\0" not in name and 0 < len(name) < 200]


@cases(40)
@given(data=st.data(), name=st.sampled_from([*_NAMES, b"\xff\xfe", b"tr1-\xe9"]))
def test_an_odd_name_of_a_run(new_place: NewPlace, data: st.DataObject, name: bytes) -> None:
    place = new_place()
    runs = _root(place)
    if name not in (b".", b".."):
        (runs / os.fsdecode(name) / "launches" / "0001").mkdir(parents=True, exist_ok=True)
    _look(place, data)
