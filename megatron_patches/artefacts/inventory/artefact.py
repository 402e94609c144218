"""One artefact as the catalogue knows it: what its manifest says, read without checking the hash of its content."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.errors import Damaged

FILES_FOLDER = "place.json"
"""Beside a manifest whose files lie in another folder: `{"folder": PATH}`, or null where only copies are left."""
_LAYOUT_LETTERS = (("tensor", "tp"), ("pipeline", "pp"), ("data", "dp"), ("zero_stage", "zero"))
_METRICS = ("validation_loss", "val_ppl", "perplexity", "loss")


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
    created: str = ""
    size: int = 0
    """bytes of all its files"""
    files: int = 0
    state: str = "valid"
    reason: str | None = None
    cause: str | None = None
    parents: tuple[str, ...] = ()
    whereabouts: str = "here"
    """here, or elsewhere: then its files do not lie beside its manifest"""

    @property
    def folder(self) -> Path:
        """Folder of the manifest."""
        return self.manifest.parent

    @property
    def name(self) -> str:
        """What people call it: run@step of a checkpoint, else the name of its folder or dataset."""
        if self.kind == "checkpoint" and self.step is not None:
            return f"{self.run}@{self.step}{'/weights' if self.content == 'weights' else ''}"
        if self.kind == "run":
            return str(self.run)
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
        content = json.loads(path.read_bytes())
        folder = content["folder"]
    except FileNotFoundError:
        return artefact_folder
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} does not say where the files are ({error}); adopt the folder again") from None
    return Path(folder) if folder is not None else None


def read_artefact(manifest: Path, run: str | None) -> Artefact:
    """Reads a manifest for the catalogue: its form is looked at, the hash of its content is not (`verify` does that).

    Args:
        run: the run whose directory it lies in, where it does not say so itself.

    Raises:
        Damaged: it is not JSON, or lacks what every manifest has.
        FileNotFoundError: it is gone.
    """
    try:
        content = json.loads(manifest.read_bytes())
        return _from_content(manifest, content, run)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"{manifest} is not a manifest ({type(error).__name__}: {error}); restore it, or make the artefact again"
        ) from None


def _from_content(manifest: Path, content: dict[str, Any], run: str | None) -> Artefact:
    facts, status = content["facts"], content.get("status", {})
    kind = str(content["kind"])
    stated = facts.get("run")
    return Artefact(
        manifest=manifest,
        id=str(content["id"]),
        kind=kind,
        run=stated if isinstance(stated, str) else run,
        step=_whole(facts.get("step")),
        samples=_whole(facts.get("samples")),
        tokens=_whole(facts.get("tokens")),
        content=str(facts.get("content", "full")) if kind == "checkpoint" else None,
        format=facts["format"] if isinstance(facts.get("format"), str) else None,
        layout=_layout(facts.get("layout")),
        metrics=_metrics(facts),
        created=str(content["created"]),
        size=sum(int(file["size"]) for file in content["files"]),
        files=len(content["files"]),
        state=str(status.get("state", "valid")),
        reason=status.get("reason"),
        cause=status.get("cause"),
        parents=tuple(str(parent) for parent in content["parents"]),
        whereabouts="elsewhere" if (manifest.parent / FILES_FOLDER).exists() else "here",
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _layout(layout: Any) -> str | None:
    if not isinstance(layout, dict):
        return None
    return " ".join(f"{short}{layout[key]}" for key, short in _LAYOUT_LETTERS if key in layout) or None


def _metrics(facts: dict[str, Any]) -> dict[str, float]:
    """Numbers by name: those of `metrics`, those that every checkpoint may have, and `results` of an evaluation."""
    found = {name: facts[name] for name in _METRICS if _is_number(facts.get(name))}
    for group in ("metrics", "results"):
        for name, value in (facts.get(group) or {}).items() if isinstance(facts.get(group), dict) else ():
            if _is_number(value):
                found[name] = value
            elif isinstance(value, dict):
                found |= {f"{name}.{metric}": number for metric, number in value.items() if _is_number(number)}
    return {name: float(value) for name, value in found.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
