"""A run's course: its launches, what each saved, what was left behind, where it came from and what came of it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.branch import Beginning, abandoned, id_of_run, read_beginnings
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.lineage import with_id
from megatron_patches.artefacts.run_folder import RunFolder


@dataclass(frozen=True)
class SavedHere:
    """A checkpoint of the run."""

    artefact: Artefact
    left_by: Beginning | None
    """by which it was left behind"""


@dataclass(frozen=True)
class CameOf:
    """What was made of a run's checkpoints: another run, an export, an evaluation."""

    name: str
    step: int | None
    """of the run's checkpoint; None where that is not known"""
    launch: int
    """that saved it; 0 where that is not known"""
    checkpoints: int
    """0 where it is no run"""


@dataclass(frozen=True)
class Course:
    """Everything that a picture of a run's lineage shows."""

    run: str
    saved: list[SavedHere]
    beginnings: list[Beginning]
    sources: Mapping[str, Artefact]
    """what launches took their weights from, by id, as far as it is here"""
    origins: list[str]
    """ids of what the run's branches began with, of other runs or earlier versions"""
    came_of: list[CameOf]

    @property
    def launches(self) -> list[int]:
        """All numbers that are known of."""
        saved = {each.artefact.launch for each in self.saved}
        return sorted(saved | {each.launch for each in self.beginnings} | {each.launch for each in self.came_of})


def course_of(catalogue: Catalogue, run: RunFolder) -> Course:
    """The course of a run.

    Raises:
        Damaged: where a launch began, or the run's manifest, cannot be read.
    """
    artefacts = catalogue.artefacts("run = ? AND kind = 'checkpoint' AND step IS NOT NULL", [run.name], "ORDER BY step")
    ways = dict(
        catalogue.rows(
            "SELECT manifest, text FROM artefacts JOIN ways ON ways.number = way WHERE run = ? AND kind = 'checkpoint'",
            [run.name],
        )
    )
    run_id = id_of_run(run)
    facts = {each.manifest: _facts(each, json.loads(ways[str(each.manifest)])) for each in artefacts}
    left = abandoned(run, facts)
    beginnings = read_beginnings(run)
    wanted = [each.checkpoint for each in beginnings if each.checkpoint]
    origins = [_origin(json.loads(way)) for way in dict.fromkeys(ways.values())]
    named = list(dict.fromkeys(each for each in origins if each))
    sources = {each: found[0] for each, found in with_id(catalogue, [*wanted, *named]).items()}
    return Course(
        run.name,
        [SavedHere(each, left.get(each.manifest)) for each in artefacts],
        beginnings,
        sources,
        [each for each in named if each not in sources or sources[each].run != run.name],
        _came_of(catalogue, run.name, run_id),
    )


def left_behind(catalogue: Catalogue, run: RunFolder) -> dict[Path, Beginning]:
    """The run's checkpoints that were left behind, by their manifests."""
    course = course_of(catalogue, run)
    return {each.artefact.manifest: each.left_by for each in course.saved if each.left_by}


def _facts(artefact: Artefact, way: list[Any]) -> dict[str, Any]:
    """What `abandoned` goes by, without reading a manifest."""
    before = [each for each in way if isinstance(each, list) and each[0] == artefact.run_id]
    branch = [[f"{launch:04d}", below] for _, launch, below in before] if artefact.run_id else []
    facts = {"launch": f"{artefact.launch:04d}", "step": artefact.step, "content": artefact.content}
    return facts | ({"run_id": artefact.run_id, "branch": branch} if artefact.run_id else {})


def _origin(way: list[Any]) -> str | None:
    return next((each for each in way if isinstance(each, str)), None)


def _came_of(catalogue: Catalogue, run: str, run_id: str | None) -> list[CameOf]:
    """By the edges of the lineage; a checkpoint that is gone is known by the ways of what came of it."""
    children = catalogue.rows(
        "SELECT DISTINCT child.number, child.run, child.kind, text, above.step, above.launch FROM artefacts AS above "
        "JOIN parents ON parent = above.id JOIN artefacts AS child ON child.number = parents.child "
        "JOIN ways ON ways.number = child.way WHERE above.run = ? AND above.kind = 'checkpoint' "
        "AND (child.run IS NOT ? OR child.kind NOT IN ('checkpoint', 'run')) ORDER BY told DESC, above.step DESC",
        [run, run],
    )
    if run_id is not None:
        children += catalogue.rows(
            "SELECT artefacts.number, run, kind, text, NULL, 0 FROM artefacts JOIN ways ON ways.number = way WHERE way "
            "IN (SELECT way FROM crossings WHERE what = ?) AND run IS NOT ?",
            [run_id, run],
        )
    seen: set[int] = set()
    counted: Counter[tuple[str, int | None, int]] = Counter()
    for number, other, kind, way, step, launch in children:
        if number in seen:
            continue
        seen.add(number)
        through = next(
            (each for each in json.loads(way) if isinstance(each, list) and each[0] == run_id), [None, launch, None]
        )
        at = through[2] - 1 if through[2] is not None else step
        if other != run:
            counted[f"run {other}", at, through[1]] += int(kind == "checkpoint")
        else:
            (artefact,) = catalogue.artefacts("number = ?", [number])
            counted[f"{kind} {artefact.name}", at, through[1]] += 0
    found = [CameOf(name, step, launch, number) for (name, step, launch), number in counted.items()]
    return sorted(found, key=lambda each: (each.launch, each.step or 0, each.name))
