"""Folders whose files grow and have no manifest, such as logs: copied file by file, with an index written last.

Of a file that grows, the bytes that were there when it was looked at are copied. The index remembers size and time of
each, so that what did not change is neither read nor sent again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.artefacts.storage.fetch import receive_file
from megatron_patches.artefacts.storage.store import Store, Upload
from megatron_patches.artefacts.storage.transfer import Options, Outcome, in_parallel, retried
from megatron_patches.errors import TrainyardError

INDEX = "index.json"
_CHUNK = 4 << 20


@dataclass(frozen=True)
class _Grown:
    """A file as it was found."""

    record: FileRecord
    modified: int
    """nanoseconds since 1970"""
    local: Path


def send_loose(store: Store, place: str, folder: Path, files: Sequence[Path], options: Options) -> Outcome:
    """Brings files of a folder to a place of a store; files that are gone here stay there.

    Raises:
        TrainyardError: a request failed at every try.
    """
    index = read_index(store, place, options)
    entries = retried(lambda: store.entries(place), options)
    grown = [found for path in files if (found := _look(path, folder, index)) is not None]
    missing = [
        each
        for each in grown
        if index.get(each.record.path, {}).get("sha256") != each.record.sha256
        or each.record.path not in entries
        or entries[each.record.path].size != each.record.size
    ]

    def send(each: _Grown) -> None:
        upload = Upload(each.local, each.record.size, each.record.sha256)
        retried(lambda: store.send(upload, f"{place}/{each.record.path}", options.meter), options)

    in_parallel([lambda each=each: send(each) for each in missing], options.parallel)  # type: ignore[misc]
    if missing:
        retried(lambda: store.settle(place), options)
        index |= {
            each.record.path: {"size": each.record.size, "sha256": each.record.sha256, "modified": each.modified}
            for each in grown
        }
        content = (json.dumps({"files": index}, indent=1, sort_keys=True) + "\n").encode()
        retried(lambda: store.write(f"{place}/{INDEX}", content), options)
    moved = sum(each.record.size for each in missing)
    return Outcome("sent" if missing else "present", len(missing), moved, "as sent")


def fetch_loose(store: Store, place: str, folder: Path, options: Options) -> Outcome:
    """Brings the files of a place into a folder; a file here that is longer than the copy, and begins as it, stays.

    Raises:
        TrainyardError: a file here is another one, a copy is damaged, or a request failed at every try.
    """
    index = read_index(store, place, options)
    missing = [
        FileRecord(path=path, size=facts["size"], sha256=facts["sha256"])
        for path, facts in index.items()
        if _beginning(folder / path, facts["size"]) != facts["sha256"]
    ]
    for file in missing:
        local = folder / file.path
        if local.exists() and local.stat().st_size >= file.size:
            raise TrainyardError(f"{local} differs from its copy at {store.location}/{place}; move it away, then pull")
    actions = [
        lambda file=file: receive_file(store, f"{place}/{file.path}", folder / file.path, file, options)
        for file in missing
    ]
    in_parallel(actions, options.parallel)
    return Outcome("fetched" if missing else "present", len(missing), sum(file.size for file in missing))


def read_index(store: Store, place: str, options: Options) -> dict[str, dict[str, Any]]:
    """What the index at a place says of each file; empty where there is none."""
    content = retried(lambda: store.read(f"{place}/{INDEX}"), options)
    if content is None:
        return {}
    try:
        files: dict[str, dict[str, Any]] = json.loads(content)["files"]
        for path, facts in files.items():
            FileRecord(path=path, size=facts["size"], sha256=facts["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainyardError(
            f"{store.location}/{place}/{INDEX} is damaged ({error}); remove it there, then sync again"
        ) from None
    return files


def _look(path: Path, folder: Path, index: dict[str, dict[str, Any]]) -> _Grown | None:
    """None for a file that vanished since it was listed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    name = path.relative_to(folder).as_posix()
    known = index.get(name, {})
    if known.get("size") == status.st_size and known.get("modified") == status.st_mtime_ns:
        sha256 = known["sha256"]
    else:
        found = _beginning(path, status.st_size)
        if found is None:
            return None
        sha256 = found
    return _Grown(FileRecord(path=name, size=status.st_size, sha256=sha256), status.st_mtime_ns, path)


def _beginning(path: Path, size: int) -> str | None:
    """Hash of the first bytes of a file; None where it has fewer, or is not there."""
    digest, left = hashlib.sha256(), size
    try:
        with path.open("rb") as file:
            while left and (chunk := file.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
    except FileNotFoundError:
        return None
    return None if left else digest.hexdigest()
