"""What people say about a run: notes, tags, promotions, deprecation. One small file for each word, never rewritten.

Files are numbered, so that of two words about one thing the later counts, whatever the clocks of their machines say.
"""

import getpass
import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import TrainyardError

FOLDER = "annotations"
Word = Literal["note", "tag", "untag", "gold", "not-gold", "deprecated", "restored"]


@dataclass(frozen=True)
class Annotation:
    """One word about a run, or about one of its artefacts."""

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
class Said:
    """What counts of all that was said about a run."""

    notes: list[Annotation]
    tags: list[str]
    gold: dict[str, Annotation]
    """by artefact"""
    deprecated: Annotation | None


def annotate(run_folder: Path, annotation: Annotation) -> None:
    """Adds a word; who says it and when is filled in.

    Raises:
        OSError: the run's directory cannot be written to.
    """
    folder = run_folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[:6]) for path in folder.glob("[0-9]*.json")]
    signed = {
        **asdict(annotation),
        "by": annotation.by or _user(),
        "date": annotation.date or datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = folder / f"{max(taken, default=0) + 1:06d}-{secrets.token_hex(3)}.json"
    write_atomically(path, (json.dumps(signed, ensure_ascii=False) + "\n").encode())


def read_annotations(folder: Path) -> list[Annotation]:
    """All words about a run in the order they were said.

    Raises:
        TrainyardError: one of the files is damaged.
    """
    found = []
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            found.append(Annotation(**json.loads(path.read_bytes())))
        except (ValueError, TypeError) as error:
            raise TrainyardError(f"{path} is not an annotation ({error}); correct or remove the file") from None
    return found


def what_counts(annotations: list[Annotation]) -> Said:
    """Later words take earlier ones back."""
    said = Said(notes=[], tags=[], gold={}, deprecated=None)
    tags: dict[str, None] = {}
    deprecated: Annotation | None = None
    for each in annotations:
        if each.word == "note":
            said.notes.append(each)
        elif each.word == "tag":
            tags[each.text] = None
        elif each.word == "untag":
            tags.pop(each.text, None)
        elif each.word == "gold" and each.artefact:
            said.gold[each.artefact] = each
        elif each.word == "not-gold" and each.artefact:
            said.gold.pop(each.artefact, None)
        else:
            deprecated = each if each.word == "deprecated" else None
    return Said(said.notes, list(tags), said.gold, deprecated)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
