"""One artefact as the catalogue knows it: what its manifest says, read without checking the hash of its content."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from megatron_patches.artefacts.chosen import BEST_BY, UNNAMED_GROUP, VALIDATION_LOSS, VALIDATION_LOSSES, group_of
from megatron_patches.artefacts.descent import RUN_ID, branch_of, number_of_launch, way_of
from megatron_patches.artefacts.evaluations.sealing import RESULTS, TASKS
from megatron_patches.artefacts.folders import is_replaced
from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.run_folder import EVALS
from megatron_patches.errors import Damaged, Missing
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import number_of, parse_object, whole_of
from megatron_patches.foreign.names import is_name
from megatron_patches.foreign.printable import printable, shortened

FILES_FOLDER = "place.json"
"""Beside a manifest whose files lie in another folder: `{"folder": PATH}`, or null where only copies are left."""
_LAYOUT_LETTERS = (("tensor", "tp"), ("pipeline", "pp"), ("data", "dp"), ("zero_stage", "zero"))
_PLACE_BYTES = 1 << 16
_SHAPES: dict[type, str] = {dict: "object", list: "list", str: "text"}
_Kind = TypeVar("_Kind")
_METRICS = (VALIDATION_LOSS, "val_ppl", "perplexity", "loss")


@dataclass(frozen=True)
class Artefact:
    """A row of the catalogue."""

    manifest: Path
    """where its manifest lies"""
    id: str
    kind: str
    run: str | None = None
    step: int | None = None
    samples: int | None = None
    tokens: int | None = None
    content: str | None = None
    """of a checkpoint: full, or weights"""
    format: str | None = None
    """of an adopted one: what wrote it; None for our own"""
    layout: str | None = None
    """tp2 pp1 dp4 zero1"""
    metrics: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    """metrics of the parts of an evaluation's tasks, such as subjects: mmlu.anatomy.acc"""
    best_by: str | None = None
    """validation group whose loss its `validation_loss` is; None where it names none"""
    created: str = ""
    size: int = 0
    """bytes of all its files"""
    files: int = 0
    state: str = "valid"
    reason: str | None = None
    cause: str | None = None
    parents: tuple[str, ...] = ()
    """as its manifest names them"""
    whereabouts: str = "here"
    """here, or elsewhere: then its files do not lie beside its manifest"""
    launch: int = 0
    """number of the launch that saved it; 0 where none did"""
    run_id: str | None = None
    """of its run's manifest, where it states its way through the run's launches"""
    way: str = "[]"
    """JSON: what else it came from, the nearest first, as ids and `[run_id, launch, below this step]`"""

    @property
    def folder(self) -> Path:
        """Folder of the manifest."""
        return self.manifest.parent

    @property
    def name(self) -> str:
        """What people call it: run@step of a checkpoint, else the name of its folder or dataset."""
        if self.kind == "checkpoint" and self.step is not None:
            again = self.folder.name.rpartition(".")[2] if is_replaced(self.folder.name) else ""
            content = "/weights" if self.content == "weights" else ""
            return f"{self.run}@{self.step}{content}{f'/{again}' if again else ''}"
        if self.kind == "run":
            return str(self.run)
        if self.kind == "evaluation" and self.run and self.folder.parent.name == EVALS:
            return f"{self.run}/{EVALS}/{self.folder.name}"  # a step's export may have the same name
        if self.manifest.name != MANIFEST:
            return self.manifest.name.removesuffix(f".{MANIFEST}")
        return f"{self.run}/{self.folder.name}" if self.run else self.folder.name

    def as_json(self) -> dict[str, Any]:
        """For other programs; what is not known is absent."""
        facts: dict[str, Any] = {"name": self.name, "id": self.id, "kind": self.kind, "manifest": str(self.manifest)}
        for key in ("run", "step", "samples", "tokens", "content", "format", "layout", "created", "size", "files"):
            if (value := getattr(self, key)) is not None:
                facts[key] = value
        facts["metrics"] = self.metrics
        if self.parts:
            facts["parts"] = self.parts
        facts["state"] = self.state
        if self.reason:
            facts["reason"] = self.reason
        return {**facts, "parents": list(self.parents), "whereabouts": self.whereabouts}


def files_folder(artefact_folder: Path) -> Path | None:
    """Folder that an artefact's files are to lie in: the manifest's own, or the one its `place.json` names; None
    where only copies are left.

    Raises:
        Damaged: `place.json` is not what an adoption writes.
    """
    path = artefact_folder / FILES_FOLDER
    try:
        folder = parse_object(read_bounded(path, _PLACE_BYTES), printable(path)).get("folder", False)
    except Missing:
        return artefact_folder
    if folder is not None and (not isinstance(folder, str) or not folder.startswith("/") or "\0" in folder):
        raise Damaged(f"{printable(path)} does not say where the files are; adopt the folder again")
    return Path(folder) if folder is not None else None


def read_artefact(manifest: Path, run: str | None) -> Artefact:
    """Reads a manifest for the catalogue: its form is looked at, the hash of its content is not (`verify` does that).

    Args:
        run: the run whose directory it lies in, where it does not say so itself.

    Raises:
        Damaged: it is not JSON, or lacks what every manifest has.
        Missing: it is gone.
        Refused: it is no plain file, or may not be read.
    """
    origin = printable(manifest)
    try:
        return _from_content(manifest, parse_object(read_bounded(manifest), origin), run)
    except _Odd as error:
        raise Damaged(f"{origin} is not a manifest ({error}); restore it, or make the artefact again") from None


class _Odd(Exception):
    """Says which part of a manifest is not as it must be."""


def _from_content(manifest: Path, content: dict[str, Any], run: str | None) -> Artefact:
    facts, status = _part(content, "facts", dict), content.get("status", {})
    kind = _part(content, "kind", str)
    if not isinstance(status, dict):
        raise _Odd("status is no object")
    sizes = [whole_of(file.get("size")) if isinstance(file, dict) else None for file in _part(content, "files", list)]
    size = sum(each for each in sizes if each is not None)
    if None in sizes or size >= 2**63:
        raise _Odd("the sizes of its files are not in order")
    parents = _part(content, "parents", list)
    if not all(isinstance(parent, str) for parent in parents):
        raise _Odd("a parent's id is no text")
    return Artefact(
        manifest=manifest,
        id=_part(content, "id", str),
        kind=kind,
        run=_run_of(facts, run),
        step=_count(facts, "step"),
        samples=_count(facts, "samples"),
        tokens=_count(facts, "tokens"),
        content=(_text(facts, "content") or "full") if kind == "checkpoint" else None,
        format=_text(facts, "format"),
        layout=_layout(facts.get("layout")),
        metrics=_metrics(facts),
        parts=_parts_of_tasks(facts),
        best_by=_text(facts, BEST_BY),
        created=_part(content, "created", str),
        size=size,
        files=len(sizes),
        state=_text(status, "state") or "valid",
        reason=_text(status, "reason"),
        cause=_text(status, "cause"),
        parents=tuple(parents),
        launch=number_of_launch(facts.get("launch")),
        **_way(facts),
        whereabouts="elsewhere" if (manifest.parent / FILES_FOLDER).exists() else "here",
    )


def _part(content: dict[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    value = content.get(name)
    if not isinstance(value, kind):
        raise _Odd(f"{name} is missing, or no {_SHAPES[kind]}")
    return value


def _text(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise _Odd(f"{name} is no text")
    return value


def _run_of(facts: dict[str, Any], run: str | None) -> str | None:
    """The run that a manifest states; what people say of it is written into a folder of this name."""
    stated = _text(facts, "run")
    if stated is not None and not is_name(stated):
        raise _Odd(f"'{shortened(stated, 60)}' cannot be the name of its run")
    return run if stated is None else stated


def _count(facts: dict[str, Any], name: str) -> int | None:
    value = facts.get(name)
    if value is not None and whole_of(value) is None:
        raise _Odd(f"{name} {shortened(value, 40)} is no count")
    return value


def _way(facts: dict[str, Any]) -> dict[str, Any]:
    """`run_id` and `way`: those of one launch have one text, since what they came from within it is left out."""
    way = [each if isinstance(each, str) else [each.run_id, each.launch, each.below] for each in way_of(facts)]
    if branch_of(facts) and way and isinstance(way[0], list):
        return {"run_id": facts[RUN_ID], "way": json.dumps(way[1:])}
    return {"way": json.dumps(way)}


def group_metric(group: str) -> str:
    """The metric that a validation group's loss is, by which a checkpoint can be found."""
    return f"{VALIDATION_LOSS}.{group}"


def _layout(layout: Any) -> str | None:
    if not isinstance(layout, dict):
        return None
    known = {short: whole_of(layout.get(key)) for key, short in _LAYOUT_LETTERS}
    return " ".join(f"{short}{size}" for short, size in known.items() if size is not None) or None


def _metrics(facts: dict[str, Any]) -> dict[str, float]:
    """Numbers by name: those of `metrics`, those that every checkpoint may have, the validation loss of each group
    where groups have names (`validation_loss.GROUP`), and `results` of an evaluation, without its tasks' parts.
    """
    found = {name: number_of(facts.get(name)) for name in _METRICS}
    losses = facts.get(VALIDATION_LOSSES)
    if isinstance(losses, dict) and not (group_of(facts) == UNNAMED_GROUP and len(losses) == 1):
        found |= {group_metric(name): number_of(loss) for name, loss in losses.items()}
    for group in ("metrics", RESULTS):
        named = facts.get(group)
        for name, value in named.items() if isinstance(named, dict) else ():
            if isinstance(value, dict):
                if not (group == RESULTS and _is_part(facts, name)):
                    found |= _numbers(name, value)
            else:
                found[name] = number_of(value)
    return {name: number for name, number in found.items() if number is not None}


def _parts_of_tasks(facts: dict[str, Any]) -> dict[str, float]:
    named = facts.get(RESULTS)
    found: dict[str, float | None] = {}
    for name, value in named.items() if isinstance(named, dict) else ():
        if isinstance(value, dict) and _is_part(facts, name):
            found |= _numbers(name, value)
    return {name: number for name, number in found.items() if number is not None}


def _is_part(facts: dict[str, Any], name: str) -> bool:
    """Whether results of this name are of a task's part; where tasks are not stated, all are of tasks."""
    tasks = facts.get(TASKS)
    return isinstance(tasks, dict) and name not in tasks


def _numbers(name: str, metrics: dict[str, Any]) -> dict[str, float | None]:
    return {f"{name}.{metric}": number_of(number) for metric, number in metrics.items()}
