"""`manifest.json`: what an artefact is, which files it has, what it came from, and whether it may be used."""

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from megatron_patches.artefacts.provenance import known_revision, versions
from megatron_patches.atomic_files import hash_file, write_atomically
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_json
from megatron_patches.foreign.printable import printable, shortened, storable

MANIFEST = "manifest.json"
"""name of the file in an artefact's folder"""

Kind = Literal["dataset", "document-hashes", "plan", "tokenizer", "checkpoint", "export", "evaluation", "run"]


_PART_BYTES = 255
"""maximum length of a name in UTF-8, as file systems have it"""
_PATH_BYTES = 4096
"""the same of a path"""
_TOLD = 5
"""maximum number of a manifest's problems in one message"""


def _is_canonical(path: str) -> str:
    """A path in its one form, so that two records never mean one file, and none a file outside the folder."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"'{shortened(path)}' is no path inside the manifest's folder: a part is empty, . or ..")
    if "\\" in path or printable(path) != path:
        raise ValueError(f"'{shortened(path)}' has a backslash or a control character")
    if len(path.encode()) > _PATH_BYTES or any(len(part.encode()) > _PART_BYTES for part in path.split("/")):
        raise ValueError(
            f"'{shortened(path)}' is longer than {_PATH_BYTES:,} bytes, or has a name of more than {_PART_BYTES} bytes"
        )
    if path == MANIFEST:
        raise ValueError(f"'{path}' is the manifest's own name")
    return path


def _is_one_line(text: str) -> str:
    if printable(text) != text:
        raise ValueError(f"'{shortened(text)}' has a control character")
    return text


_Line = Annotated[str, AfterValidator(_is_one_line)]


def path_conflicts(paths: Iterable[str]) -> list[str]:
    """What is wrong between the paths of one folder's files: one that occurs twice, or is a folder of another."""
    known: set[str] = set()
    problems = []
    for path in paths:
        if path in known:
            problems.append(f"'{path}' occurs twice")
        known.add(path)
    folders = {path[:end] for path in known for end, mark in enumerate(path) if mark == "/"}
    return problems + [f"'{path}' is a file and the folder of another" for path in sorted(known & folders)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileRecord(_Record):
    """One file of an artefact."""

    path: Annotated[str, AfterValidator(_is_canonical)]
    """Relative to the manifest's folder, with forward slashes; no part is empty, `.` or `..`."""
    size: Annotated[int, Field(ge=0, lt=1 << 63)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """64 lowercase hexadecimal digits."""


class Origin(_Record):
    """What made an artefact."""

    command: str
    revision: str | None
    """Git revision of the checkout, with `+changes` if it had any; None where it was not known."""
    revision_missing: str | None = None
    """Why it was not known; not written where it was."""
    versions: dict[str, str]
    proof: dict[str, JsonValue] | None = None
    """What showed that it was made rightly, where ways that give the same were to choose from; not written where None.
    It is no part of the id: what was made is the same."""

    def describe_revision(self) -> str:
        """The revision for people, or why it is not known."""
        return self.revision or f"not known: {self.revision_missing or 'no reason was recorded'}"

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_missing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name in ("revision_missing", "proof"):
            if written[name] is None:
                del written[name]
        return written


class Status(_Record):
    """Whether an artefact may be used; not part of its id, so that it can change."""

    state: Literal["valid", "invalid"] = "valid"
    reason: str | None = None
    date: _Line | None = None
    """UTC, ISO 8601."""
    cause: str | None = None
    """Id of the artefact it was invalidated with; its own where the fault is its own."""

    def is_older_than(self, other: "Status") -> bool:
        """Of two words about one artefact the later counts; who never said anything says less than anybody."""
        return (self.date or "") < (other.date or "")


class Manifest(_Record):
    """The record of one artefact; `id` is a hash of kind, parents, files and facts."""

    format: Literal[1] = 1
    id: str
    kind: Kind
    created: _Line
    """UTC, ISO 8601."""
    by: Origin
    parents: list[_Line]
    files: list[FileRecord]
    facts: dict[str, JsonValue]
    status: Status = Status()

    @model_validator(mode="after")
    def _has_one_file_for_each_path(self) -> "Manifest":
        if problems := path_conflicts(file.path for file in self.files):
            raise ValueError("; ".join(problems[:_TOLD]))
        return self


def record_file(path: Path, folder: Path) -> FileRecord:
    """Hashes a file that lies under the folder of the manifest to be."""
    sha256, size = hash_file(path)
    return FileRecord(path=path.relative_to(folder).as_posix(), size=size, sha256=sha256)


def content_id(kind: Kind, parents: Sequence[str], files: Sequence[FileRecord], facts: Mapping[str, JsonValue]) -> str:
    """sha256 over the canonical JSON of an artefact's content: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: a fact is NaN or infinite, nested too deeply, or text that is not Unicode: no file can hold it.
    """
    content = {
        "kind": kind,
        "parents": list(parents),
        "files": [file.model_dump() for file in files],
        "facts": dict(facts),
    }
    try:
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
    except RecursionError:
        raise ValueError("the facts are nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("a text in the facts is not Unicode: it holds half of a surrogate pair") from None


def build_manifest(
    kind: Kind,
    files: Sequence[FileRecord],
    facts: Mapping[str, JsonValue],
    parents: Sequence[str] = (),
    command: str | None = None,
    proof: Mapping[str, JsonValue] | None = None,
) -> Manifest:
    """The manifest of an artefact made now, by this checkout.

    Args:
        command: how it was made; None takes this process's command line. Credentials in it are left out.
        proof: see `Origin`.
    """
    if command is None:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    code = known_revision(CHECKOUT)
    return Manifest(
        id=content_id(kind, parents, files, facts),
        kind=kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        by=Origin(
            command=storable(without_credentials(command)),
            revision=code.text,
            revision_missing=code.missing,
            versions=versions(),
            proof=None if proof is None else dict(proof),
        ),
        parents=list(parents),
        files=list(files),
        facts=dict(facts),
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes it whole or not at all; an artefact's files must be on the disk before."""
    write_atomically(path, manifest_bytes(manifest))


def announce_change(manifest: Path) -> None:
    """Sets the time of the folder by which catalogues notice a manifest that was rewritten in place."""
    with suppress(PermissionError):  # somebody else's folder: `tools/inventory rebuild` finds the change
        os.utime(manifest.parent.parent)


def manifest_bytes(manifest: Manifest) -> bytes:
    """What its file holds."""
    return (json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        Missing: there is none.
        Damaged: unreadable, or changed after it was written.
        Refused: a later version wrote it, or it is no plain file.
    """
    try:
        content = read_bounded(path)
    except Missing:
        shown = printable(path)
        raise Missing(f"{shown} does not exist: the artefact has no manifest, or the path is wrong") from None
    return parse_manifest(content, printable(path))


def parse_manifest(text: bytes, origin: str) -> Manifest:
    """The manifest that a file holds; `origin` says in an error where it lies.

    Raises:
        Damaged: unreadable, or changed after it was written.
        Refused: a later version wrote it.
    """
    manifest = _parse(text, origin)
    try:
        expected = content_id(manifest.kind, manifest.parents, manifest.files, manifest.facts)
    except ValueError as error:
        raise Damaged(f"{origin} holds what no manifest can ({error}); make the artefact again") from None
    if manifest.id != expected:
        raise Damaged(
            f"{origin} was changed after it was written: its id is {shortened(manifest.id)}, its content hashes to "
            f"{expected}. Restore the original file, or make the artefact again"
        )
    return manifest


def _parse(text: bytes, origin: str) -> Manifest:
    try:
        content = parse_json(text, origin)
    except Damaged as error:
        raise Damaged(f"{error}; restore the file, or make the artefact again") from None
    written = content.get("format") if isinstance(content, dict) else None
    if isinstance(written, int) and written > 1:
        raise Refused(
            f"{origin} is of format {shortened(written)}, which a later Trainyard wrote; this one reads format 1: "
            "update the checkout"
        )
    try:
        return Manifest.model_validate(content)
    except (ValidationError, RecursionError) as error:
        found = error.errors() if isinstance(error, ValidationError) else []
        told = [
            f"{shortened('.'.join(map(str, each['loc'])))}: {shortened(_said(each['msg']))}" for each in found[:_TOLD]
        ]
        more = [f"and {len(found) - _TOLD} more"] if len(found) > _TOLD else []
        problems = "; ".join([*told, *more]) or "nested too deeply"
        raise Damaged(f"{origin} is not a manifest of format 1 ({problems})") from None


def _said(message: str) -> str:
    """What a check of ours said, without what pydantic writes before it."""
    return message.removeprefix("Value error, ")


def refuse_invalid(manifest: Manifest, path: Path, way_around: str) -> None:
    """Raises Refused if the artefact was marked invalid.

    Args:
        path: where its manifest lies.
        way_around: what a person does who wants to use it all the same.
    """
    if manifest.status.state == "invalid":
        raise Refused(
            f"{printable(path)} marks this {manifest.kind} invalid since {manifest.status.date}: "
            f"{shortened(manifest.status.reason, 500)}. "
            f"Use another one, or {way_around}"
        )


def verify_files(manifest: Manifest, folder: Path, hashes: bool) -> list[str]:
    """Compares an artefact's files with its manifest.

    Args:
        folder: the folder of the manifest.
        hashes: also read every byte; sizes alone cost nothing.

    Returns:
        One sentence for each missing, shorter, longer or changed file; empty when all is well.
    """
    problems = []
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif (size := path.stat().st_size) != file.size:
            problems.append(f"{path} has {size:,} bytes, its manifest says {file.size:,}")
        elif hashes and (found := hash_file(path)[0]) != file.sha256:
            problems.append(f"{path} has sha256 {found}, its manifest says {file.sha256}")
    return problems
