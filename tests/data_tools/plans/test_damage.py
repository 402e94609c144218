"""A plan that is not what was written, is another's, or could not be written."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.plans.plan_file import HEADER, PlanWriter
from data_tools.plans.planned_samples import PlannedSamples
from data_tools.plans.plans import PlanRequest, make_plan, open_plan
from megatron_patches.artefacts.manifest import build_manifest, read_manifest, record_file, write_manifest
from megatron_patches.atomic_files import HashingWriter
from megatron_patches.errors import Damaged, Refused, TrainyardError
from tests.data_tools.plans.requests import DATASET_ID, Chosen, request_of, texts_of

DOCUMENTS = [list(range(10, 15)), list(range(20, 32)), list(range(40, 70)), [5, 6]]


class Plan:
    """One plan and its files."""

    def __init__(self, prefix: Path, samples: str) -> None:
        chosen = Chosen((0, 2, 3)) if samples == "stream" else None
        self.request: PlanRequest = request_of(prefix, samples, documents=chosen)
        self.dataset = IndexedDataset(prefix)
        self.made = make_plan(self.request, self.dataset, lambda done, total: None)
        (self.path,) = prefix.parent.glob("*.plan")
        self.manifest = self.path.with_name(f"{self.path.name}.manifest.json")

    def open(self) -> PlannedSamples | None:
        return open_plan(self.request, self.dataset)

    def state(self, **facts: Any) -> None:
        """A manifest that fits the file as it is now, so that only what reads it can find what is wrong."""
        old = read_manifest(self.manifest)
        files = [record_file(self.path, self.path.parent)]
        write_manifest(self.manifest, build_manifest("plan", files, {**old.facts, **facts}, old.parents))

    def overwrite(self, at: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(content)
        self.state()


@pytest.fixture(params=["windows", "packs", "stream"])
def plan(request: pytest.FixtureRequest, make_dataset: Callable[..., Path]) -> Plan:
    return Plan(make_dataset(DOCUMENTS), request.param)


@pytest.fixture
def packs(make_dataset: Callable[..., Path]) -> Plan:
    return Plan(make_dataset(DOCUMENTS), "packs")


def read_all(samples: PlannedSamples | None) -> list[Any]:
    assert samples is not None
    return [samples[number]["tokens"].tolist() for number in range(len(samples))]


@pytest.mark.parametrize("size", [0, 7, HEADER.size - 1, HEADER.size, -4, -1])
def test_cut_off(plan: Plan, size: int) -> None:
    whole, items = plan.path.read_bytes(), read_all(plan.made)
    plan.path.write_bytes(whole[:size])
    with pytest.raises(Damaged, match=r"bytes, its manifest says .*; delete .*, and the next launch makes it again"):
        plan.open()
    plan.state()
    with pytest.raises(Damaged, match=r"\.plan (is no plan of samples, or is cut off|has .* bytes, expected)"):
        plan.open()
    make_plan(plan.request, plan.dataset, lambda done, total: None)
    assert plan.path.read_bytes() == whole
    assert read_all(plan.open()) == items


def test_longer(plan: Plan) -> None:
    plan.path.write_bytes(plan.path.read_bytes() + bytes(8))
    plan.state()
    with pytest.raises(Damaged, match=r"has .* bytes, expected .* from its own counts"):
        plan.open()


@pytest.mark.parametrize(
    ("at", "content", "kind", "told"),
    [
        (0, b"X", Damaged, "is no plan of samples"),
        (8, struct.pack("<I", 2), Refused, "is a plan of version 2, this Trainyard reads version 1; delete "),
        (12, struct.pack("<I", 9), Damaged, "damaged header"),
        (16, struct.pack("<Q", 9), Damaged, "is not the plan that its manifest describes"),
        (24, struct.pack("<Q", 1 << 60), Damaged, "(bytes, expected|damaged header)"),
        (32, struct.pack("<Q", (1 << 64) - 1), Damaged, "(bytes, expected|damaged header|not the plan)"),
    ],
)
def test_header(plan: Plan, at: int, content: bytes, kind: type[TrainyardError], told: str) -> None:
    plan.overwrite(at, content)
    with pytest.raises(kind, match=told):
        plan.open()


@pytest.mark.parametrize("value", [-1, 1 << 40, -(1 << 63), (1 << 63) - 1])
def test_places_outside_the_dataset(plan: Plan, value: int) -> None:
    """Of each segment in turn; of this size of file all are looked at when it is opened, or read."""
    whole = plan.path.read_bytes()
    for number in range(plan.made.facts.segments):
        plan.overwrite(HEADER.size + 8 * number, struct.pack("<q", value))
        with pytest.raises(Damaged, match=r"is not made of tokens of .*the plan is damaged; delete "):
            read_all(plan.open())
        plan.path.write_bytes(whole)


@pytest.mark.parametrize("value", [0, -1, 9, 1 << 30, (1 << 31) - 1])
def test_lengths(packs: Plan, value: int) -> None:
    segments = packs.made.facts.segments
    packs.overwrite(packs.path.stat().st_size - 4 * segments, struct.pack("<i", value))
    with pytest.raises(Damaged, match="is not made of tokens of"):
        read_all(packs.open())


@pytest.mark.parametrize("number", [0, 1, 3, -1])
@pytest.mark.parametrize("value", [-1, 2, 1 << 40, (1 << 63) - 1])
def test_first_segments(packs: Plan, number: int, value: int) -> None:
    first = HEADER.size + 8 * packs.made.facts.segments
    places = packs.made.facts.samples + 1
    packs.overwrite(first + 8 * (number % places), struct.pack("<q", value))
    with pytest.raises(Damaged, match=r"samples are not in order|is not made of tokens of"):
        read_all(packs.open())


@pytest.mark.parametrize("value", [-1, 0, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("number", [0, 1])
def test_ends_of_a_stream(make_dataset: Callable[..., Path], number: int, value: int) -> None:
    plan = Plan(make_dataset(DOCUMENTS), "stream")
    assert plan.made.facts.segments == 2
    plan.overwrite(HEADER.size + 8 * (2 + number), struct.pack("<q", value))
    with pytest.raises(Damaged, match=r"its runs do not have the tokens of the stream|is not made of tokens of"):
        read_all(plan.open())


def test_damage_that_only_reading_finds(make_dataset: Callable[..., Path]) -> None:
    """Opening looks at a thousand places; whatever else is wrong is found by the sample that has it."""
    plan = Plan(make_dataset([[1, 2]] * 5000), "windows")
    plan.overwrite(HEADER.size + 8 * 4321, struct.pack("<q", 1 << 40))
    samples = plan.open()
    assert samples is not None and samples[4320]["tokens"].tolist()[:2] == [1, 2]
    with pytest.raises(Damaged, match="sample 4321 is not made of tokens of"):
        samples[4321]


def test_the_file_is_gone(plan: Plan) -> None:
    plan.path.unlink()
    with pytest.raises(Damaged, match="is missing; delete"):
        plan.open()


def test_without_a_manifest_there_is_none(plan: Plan) -> None:
    plan.manifest.unlink()
    assert plan.open() is None


@pytest.mark.parametrize(
    ("facts", "kind", "told"),
    [
        ({"version": 2}, Refused, "of version 2, this Trainyard reads version 1; delete"),
        ({"samples": "many"}, Damaged, "lacks or misstates the facts samples"),
        ({"samples": 1}, Damaged, "is not the plan that its manifest describes"),
        ({"key": "0" * 64}, Damaged, "is the manifest of another plan"),
    ],
)
def test_facts(plan: Plan, facts: dict[str, Any], kind: type[TrainyardError], told: str) -> None:
    plan.state(**facts)
    with pytest.raises(kind, match=told):
        plan.open()


def test_an_edited_manifest(plan: Plan) -> None:
    content = json.loads(plan.manifest.read_text())
    content["facts"]["samples"] += 1
    plan.manifest.write_text(json.dumps(content))
    with pytest.raises(Damaged, match=r"was changed after it was written.*the next launch makes it again"):
        plan.open()


@pytest.mark.parametrize(
    ("kind", "parents", "told"),
    [
        ("plan", ["e" * 64], "a plan of another dataset or tokenizer"),
        ("plan", [DATASET_ID, "f" * 64], "a plan of another dataset or tokenizer"),
        ("dataset", [DATASET_ID], "a dataset"),
    ],
)
def test_of_something_else(plan: Plan, kind: Any, parents: list[str], told: str) -> None:
    old = read_manifest(plan.manifest)
    write_manifest(plan.manifest, build_manifest(kind, old.files, old.facts, parents))
    with pytest.raises(Refused, match=f"is the manifest of {told}"):
        plan.open()


def test_invalid(plan: Plan) -> None:
    """A fault of its own is one; that of the dataset is for whoever opens the dataset to judge."""
    manifest = read_manifest(plan.manifest)
    for cause, refused in ((DATASET_ID, False), (manifest.id, True)):
        marked = {"state": "invalid", "reason": "wrong cut", "date": "2026-01-01", "cause": cause}
        write_manifest(plan.manifest, manifest.model_validate({**manifest.model_dump(), "status": marked}))
        if refused:
            with pytest.raises(Refused, match="wrong cut"):
                plan.open()
        else:
            assert plan.open() is not None


@pytest.mark.parametrize("ending", ["", ".manifest.json"])
def test_a_folder_in_its_place(packs: Plan, ending: str) -> None:
    for path in (packs.path, packs.manifest):
        path.unlink()
    packs.path.with_name(packs.path.name + ending).mkdir()
    with pytest.raises(TrainyardError, match="is a folder, where a file of a plan goes; move it away"):
        make_plan(packs.request, packs.dataset, lambda done, total: None)


class Fault(Exception):
    """Injected."""


@pytest.mark.parametrize("at", ["block", "spool", "file", "rename"])
@pytest.mark.parametrize("samples", ["windows", "packs"])
def test_a_fault_while_it_is_made_leaves_nothing(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, at: str, samples: str
) -> None:
    prefix = make_dataset(DOCUMENTS)
    request, dataset = request_of(prefix, samples), IndexedDataset(prefix)
    before = {path.name for path in prefix.parent.iterdir()}

    def fail(*arguments: Any, **options: Any) -> None:
        raise Fault

    places: dict[str, tuple[Any, str]] = {
        "spool": (PlanWriter, "publish"),
        "file": (HashingWriter, "write"),
        "rename": (Path, "replace"),
    }
    with monkeypatch.context() as patch, pytest.raises(Fault):
        if at in places:
            patch.setattr(*places[at], fail)
        make_plan(request, dataset, fail if at == "block" else lambda done, total: None)
    assert {path.name for path in prefix.parent.iterdir()} == before
    assert open_plan(request, dataset) is None


def test_a_plan_that_is_made_again_is_there_all_the_while(packs: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank may open it at any time, and a fault leaves the old one."""
    seen: list[Any] = []

    def look(*arguments: Any, **options: Any) -> None:
        seen.append(read_all(packs.open()))
        if len(seen) > 1:
            raise Fault

    monkeypatch.setattr("data_tools.plans.plans.write_manifest", look)
    with pytest.raises(Fault):
        make_plan(packs.request, packs.dataset, look)
    assert len(seen) == 2
    assert read_all(packs.open()) == seen[0] == seen[1]


KILLED = """\
import os, signal, sys
from pathlib import Path
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.plans import plans
from megatron_patches.atomic_files import HashingWriter
from tests.data_tools.plans.requests import request_of

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "file":
    HashingWriter.close = die
if sys.argv[2] == "manifest":
    plans.write_manifest = die
prefix = Path(sys.argv[1])
on_progress = die if sys.argv[2] == "block" else lambda done, total: None
plans.make_plan(request_of(prefix, "packs"), IndexedDataset(prefix), on_progress)
"""


@pytest.mark.parametrize(("at", "left"), [("block", []), ("file", [".partial"]), ("manifest", [".plan"])])
def test_a_kill_leaves_no_plan(make_dataset: Callable[..., Path], at: str, left: list[str]) -> None:
    """At most a file that no one takes for one; made again, it is whole."""
    prefix = make_dataset(DOCUMENTS)
    before = set(prefix.parent.iterdir())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(prefix), at], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in set(prefix.parent.iterdir()) - before] == left
    request, dataset = request_of(prefix, "packs"), IndexedDataset(prefix)
    assert open_plan(request, dataset) is None
    made = make_plan(request, dataset, lambda done, total: None)
    found = open_plan(request, dataset)
    assert found is not None
    assert texts_of(found) == texts_of(made)
    assert np.concatenate(read_all(made)).sum() == sum(map(sum, DOCUMENTS))
