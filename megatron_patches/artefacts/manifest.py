"""`manifest.json`: what an artefact is, which files it has, what it came from, and whether it may be used."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationError

from megatron_patches.atomic_files import hash_file, write_atomically
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_json

MANIFEST = "manifest.json"
"""name of the file in an artefact's folder"""

MANIFEST = "manifest.json"
"""name of the file in an artefact's folder"""

Kind = Literal["dataset", "tokenizer", "checkpoint", "export", "evaluation", "run"]


def _stays_inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"{path!r} does not lie inside the manifest's folder")
    return path


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileRecord(_Record):
    """One file of an artefact."""

    path: Annotated[str, AfterValidator(_stays_inside)]
    """Relative to the manifest's folder, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str
    """64 hexadecimal digits."""


class Origin(_Record):
    """What made an artefact."""

    command: str
    revision: str | None
    """Git revision of the checkout, with `+changes` if it had any; None where git or the repository is missing."""
    versions: dict[str, str]


class Status(_Record):
    """Whether an artefact may be used; not part of its id, so that it can change."""

    state: Literal["valid", "invalid"] = "valid"
    reason: str | None = None
    date: str | None = None
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
    created: str
    """UTC, ISO 8601."""
    by: Origin
    parents: list[str]
    files: list[FileRecord]
    facts: dict[str, JsonValue]
    status: Status = Status()


def record_file(path: Path, folder: Path) -> FileRecord:
    """Hashes a file that lies under the folder of the manifest to be."""
    sha256, size = hash_file(path)
    return FileRecord(path=path.relative_to(folder).as_posix(), size=size, sha256=sha256)


def content_id(kind: Kind, parents: Sequence[str], files: Sequence[FileRecord], facts: Mapping[str, JsonValue]) -> str:
    """sha256 over the canonical JSON of an artefact's content: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: a fact is NaN or infinite, which JSON cannot hold.
    """
    content = {
        "kind": kind,
        "parents": list(parents),
        "files": [file.model_dump() for file in files],
        "facts": dict(facts),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def build_manifest(
    kind: Kind,
    files: Sequence[FileRecord],
    facts: Mapping[str, JsonValue],
    parents: Sequence[str] = (),
    command: str | None = None,
) -> Manifest:
    """The manifest of an artefact made now, by this checkout.

    Args:
        command: how it was made; None takes this process's command line.
    """
    if command is None:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Manifest(
        id=content_id(kind, parents, files, facts),
        kind=kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        by=Origin(command=command, revision=_revision(CHECKOUT), versions=_versions()),
        parents=list(parents),
        files=list(files),
        facts=dict(facts),
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes it whole or not at all; an artefact's files must be on the disk before."""
    text = json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        Missing: there is none.
        Damaged: unreadable, or changed after it was written.
        Refused: a later version wrote it.
    """
    try:
        content = read_bounded(path)
    except Missing:
        raise Missing(f"{path} does not exist: the artefact has no manifest, or the path is wrong") from None
    return parse_manifest(content, str(path))


def parse_manifest(text: bytes, origin: str) -> Manifest:
    """The manifest that a file holds; `origin` says in an error where it lies.

    Raises:
        Damaged: unreadable, or changed after it was written.
        Refused: a later version wrote it.
    """
    manifest = _parse(text, origin)
    expected = content_id(manifest.kind, manifest.parents, manifest.files, manifest.facts)
    if manifest.id != expected:
        raise Damaged(
            f"{origin} was changed after it was written: its id is {manifest.id}, its content hashes to {expected}. "
            "Restore the original file, or make the artefact again"
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
            f"{origin} is of format {written}, which a later Trainyard wrote; this one reads format 1: update the "
            "checkout"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Damaged(f"{origin} is not a manifest of format 1 ({problems})") from None


def refuse_invalid(manifest: Manifest, path: Path, way_around: str) -> None:
    """Raises Refused if the artefact was marked invalid.

    Args:
        path: where its manifest lies.
        way_around: what a person does who wants to use it all the same.
    """
    if manifest.status.state == "invalid":
        raise Refused(
            f"{path} marks this {manifest.kind} invalid since {manifest.status.date}: {manifest.status.reason}. "
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


def _revision(checkout: Path) -> str | None:
    try:
        head = _git(checkout, "rev-parse", "HEAD")
        changes = _git(checkout, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changes else head


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("numpy", "trainyard"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # a checkout that runs without being installed has no version to state
    return versions
