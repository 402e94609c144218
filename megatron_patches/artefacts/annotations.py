"""What people say about a run: notes, tags, promotions, deprecation. One small file for each annotation, never
rewritten.

Files are numbered, so that of two annotations of one thing the later counts, whatever the clocks of their machines say.
"""

import getpass
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged

Word = Literal["note", "tag", "untag", "gold", "not-gold", "deprecated", "restored"]


@dataclass(frozen=True)
class Annotation:
    """What was said about a run, or about one of its artefacts."""

    word: Word
    text: str
    """a note's text, a tag's name, a reason"""
    artefact: str | None = None
    """id of the artefact meant; None means the run"""
    metric: str | None = None
    """name of the metric that a promotion rests on"""
    value: float | None = None
    by: str = ""
    date: str = ""
    """UTC, ISO 8601"""


@dataclass(frozen=True)
class Standing:
    """What counts of all annotations of a run."""

    notes: list[Annotation] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    gold: dict[str, Annotation] = field(default_factory=dict)
    """by artefact"""
    deprecated: Annotation | None = None


def annotate(run_folder: Path, annotation: Annotation) -> None:
    """Adds an annotation; who makes it and when is filled in.

    Raises:
        OSError: the run's directory cannot be written to.
    """
    folder = RunFolder(run_folder).annotations
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[:6]) for path in folder.glob("[0-9]*.json")]
    signed = {
        **asdict(annotation),
        "by": annotation.by or _user(),
        "date": annotation.date or datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = folder / f"{max(taken, default=0) + 1:06d}-{secrets.token_hex(3)}.json"
    write_atomically(path, (json.dumps(signed, ensure_ascii=False) + "\n").encode())


def read_annotations(run_folder: Path) -> list[Annotation]:
    """All annotations of a run in the order they were made.

    Raises:
        Damaged: one of the files is not what `annotate` writes.
    """
    found = []
    for path in sorted(RunFolder(run_folder).annotations.glob("[0-9]*.json")):
        try:
            found.append(Annotation(**json.loads(path.read_bytes())))
        except (ValueError, TypeError) as error:
            raise Damaged(f"{path} is not an annotation ({error}); correct or remove the file") from None
    return found


def standing_of(annotations: list[Annotation]) -> Standing:
    """Later annotations take earlier ones back."""
    notes: list[Annotation] = []
    tags: dict[str, None] = {}
    gold: dict[str, Annotation] = {}
    deprecated: Annotation | None = None
    for each in annotations:
        if each.word == "note":
            notes.append(each)
        elif each.word == "tag":
            tags[each.text] = None
        elif each.word == "untag":
            tags.pop(each.text, None)
        elif each.word == "gold" and each.artefact:
            gold[each.artefact] = each
        elif each.word == "not-gold" and each.artefact:
            gold.pop(each.artefact, None)
        else:
            deprecated = each if each.word == "deprecated" else None
    return Standing(notes, list(tags), gold, deprecated)


def read_standing(run_folder: Path) -> Standing:
    """What counts of all annotations of a run; nothing where it has none.

    Raises:
        Damaged: one of the files is not what `annotate` writes.
    """
    return standing_of(read_annotations(run_folder))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
