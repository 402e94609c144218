"""What people say about a run: notes, tags, promotions, deprecation. One small file for each annotation, never
rewritten.

Files are numbered, so that of two annotations of one thing the later counts, whatever the clocks of their machines say.
"""

import getpass
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.credentials import refuse_credentials
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.json_text import number_of, parse_object
from megatron_patches.foreign.names import check_name, is_name
from megatron_patches.foreign.printable import printable, shortened

Word = Literal["note", "tag", "untag", "gold", "not-gold", "deprecated", "restored"]
_FILE = re.compile(r"([0-9]{6,9})-[^/]+\.json")
_BYTES = 1 << 20
"""largest file of one annotation that is read"""


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
        TrainyardError: a tag cannot be a name, or a text seems to hold credentials.
        OSError: the run's directory cannot be written to.
    """
    check_annotation(annotation)
    folder = RunFolder(run_folder).annotations
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(found[1]) for name in names_in(folder) if (found := _FILE.fullmatch(name))]
    signed = {
        **asdict(annotation),
        "by": annotation.by or user_name(),
        "date": annotation.date or datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = folder / f"{max(taken, default=0) + 1:06d}-{secrets.token_hex(3)}.json"
    write_atomically(path, (json.dumps(signed) + "\n").encode())


def check_annotation(annotation: Annotation) -> None:
    """Raises TrainyardError where a tag cannot be a name, or a text seems to hold credentials."""
    if annotation.word == "tag":
        check_name(annotation.text, "a tag")
    refuse_credentials(annotation.text, "a note" if annotation.word == "note" else "what is said of a run")


def read_annotations(run_folder: Path) -> list[Annotation]:
    """All annotations of a run in the order they were made.

    Raises:
        Damaged: one of the files is not what `annotate` writes.
    """
    found, problems = scan_annotations(run_folder)
    if problems:
        raise Damaged(f"{problems[0]}; correct or remove the file")
    return found


def scan_annotations(run_folder: Path) -> tuple[list[Annotation], list[str]]:
    """The same for a view, which goes on: what can be read, and a sentence for each file that cannot."""
    folder = RunFolder(run_folder).annotations
    found: list[Annotation] = []
    problems: list[str] = []
    try:
        names = [name for name in names_in(folder) if name[0] in "0123456789" and name.endswith(".json")]
    except TrainyardError as error:
        return [], [str(error)]
    for name in sorted(names):
        try:
            found.append(_parse(read_bounded(folder / name, _BYTES), printable(folder / name)))
        except TrainyardError as error:
            problems.append(str(error))
    return found, problems


def _parse(content: bytes, origin: str) -> Annotation:
    facts = parse_object(content, origin)
    wrong = [name for name in facts if name not in _FIELDS or not _FIELDS[name](facts[name])]
    wrong += [name for name in ("word", "text") if name not in facts]
    if wrong:
        raise Damaged(f"{origin} is not an annotation (see {shortened(', '.join(wrong))})")
    return Annotation(**facts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FIELDS = {
    "word": lambda value: value in get_args(Word),
    "text": _is_text,
    "artefact": lambda value: value is None or _is_text(value),
    "metric": lambda value: value is None or _is_text(value),
    "value": lambda value: value is None or number_of(value) is not None,
    "by": _is_text,
    "date": _is_text,
}


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
        elif each.word in ("deprecated", "restored"):
            deprecated = each if each.word == "deprecated" else None
    return Standing(notes, list(tags), gold, deprecated)


def read_standing(run_folder: Path) -> Standing:
    """What counts of all annotations of a run; nothing where it has none.

    Raises:
        Damaged: one of the files is not what `annotate` writes.
    """
    return standing_of(read_annotations(run_folder))


def user_name() -> str:
    """Who runs this process; the number where the name, which the environment may give, cannot be one."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = ""
    return name if is_name(name) else str(os.getuid())
