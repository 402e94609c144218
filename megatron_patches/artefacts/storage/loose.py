"""Folders whose files grow and have no manifest, such as logs: copied file by file, with an index written last.

A file that grows is copied up to its size at the time of the scan. The index records the size and time of each file, so
that an unchanged file is neither read nor sent again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.inside import refuse_outside
from megatron_patches.artefacts.manifest import FileRecord, path_conflicts
from megatron_patches.artefacts.storage.fetch import refuse_without_space
from megatron_patches.artefacts.storage.store import DamagedCopy, Store, Upload
from megatron_patches.artefacts.storage.transfer import Options, TransferOutcome, in_parallel
from megatron_patches.atomic_files import hash_file, temporary_path
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

INDEX = "index.json"


@dataclass(frozen=True)
class _Snapshot:
    """A file as it was found."""

    record: FileRecord
    modified: int
    """nanoseconds since 1970"""
    local: Path


def send_loose(store: Store, prefix: str, folder: Path, files: Sequence[Path], options: Options) -> TransferOutcome:
    """Brings files of a folder to a prefix of a store; files that are gone here stay there.

    Raises:
        DamagedCopy: the index there cannot be read.
        TrainyardError: a request failed.
    """
    index = read_index(store, prefix)
    entries = store.entries(prefix)
    snapshots = [found for path in files if (found := _snapshot(path, folder, index)) is not None]
    missing = [
        each
        for each in snapshots
        if index.get(each.record.path, {}).get("sha256") != each.record.sha256
        or each.record.path not in entries
        or entries[each.record.path].size != each.record.size
    ]

    def send(each: _Snapshot) -> None:
        upload = Upload(each.local, each.record.size, each.record.sha256)
        store.send(upload, f"{prefix}/{each.record.path}", options.meter)

    in_parallel(send, missing, options.parallel)
    if missing:
        store.commit(prefix)
        index |= {
            each.record.path: {"size": each.record.size, "sha256": each.record.sha256, "modified": each.modified}
            for each in snapshots
        }
        content = (json.dumps({"files": index}, indent=1, sort_keys=True) + "\n").encode()
        store.write(f"{prefix}/{INDEX}", content)
    moved = sum(each.record.size for each in missing)
    return TransferOutcome("sent" if missing else "present", len(missing), moved)


def fetch_loose(store: Store, prefix: str, folder: Path, options: Options) -> TransferOutcome:
    """Brings files beneath a prefix into a folder; of a file here and its copy one begins as the other, and the longer
    one is there at the end.

    Raises:
        DamagedCopy: a copy or the index there is damaged.
        Refused: a link leads out of the folder.
        TrainyardError: a file here is another one, or a request failed.
    """
    index = read_index(store, prefix)
    for path in index:
        refuse_outside(folder / path, folder)
    missing = [
        FileRecord(path=path, size=facts["size"], sha256=facts["sha256"])
        for path, facts in index.items()
        if _beginning(folder / path, facts["size"]) != facts["sha256"]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    refuse_without_space(sum(file.size for file in missing), folder)
    for file in missing:
        local = folder / file.path
        if local.exists() and local.stat().st_size >= file.size:
            raise _differs(store, prefix, local)

    def fetch(file: FileRecord) -> None:
        local = folder / file.path
        if not local.exists():
            store.fetch(f"{prefix}/{file.path}", local, file, options.meter)
            return
        longer = temporary_path(local)
        try:
            store.fetch(f"{prefix}/{file.path}", longer, file, options.meter)
            sha256, size = hash_file(local)
            if _beginning(longer, size) != sha256:
                raise _differs(store, prefix, local)
            longer.replace(local)
        finally:
            longer.unlink(missing_ok=True)

    in_parallel(fetch, missing, options.parallel)
    return TransferOutcome("fetched" if missing else "present", len(missing), sum(file.size for file in missing))


def _differs(store: Store, prefix: str, local: Path) -> TrainyardError:
    return TrainyardError(
        f"{printable(local)} differs from its copy at {store.location}/{prefix}; move it away, then pull"
    )


def read_index(store: Store, prefix: str) -> dict[str, dict[str, Any]]:
    """The index beneath a prefix, a record for each file; empty where there is none.

    Raises:
        DamagedCopy: it cannot be read.
    """
    content = store.read(f"{prefix}/{INDEX}")
    if content is None:
        return {}
    try:
        files: dict[str, dict[str, Any]] = parse_object(content, INDEX)["files"]
        for path, facts in files.items():
            FileRecord(path=path, size=facts["size"], sha256=facts["sha256"])
        refuse(path_conflicts(files))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCopy(
            f"{store.location}/{prefix}/{INDEX} is damaged ({shortened(error)}); remove it there, then sync again"
        ) from None
    return files


def _snapshot(path: Path, folder: Path, index: dict[str, dict[str, Any]]) -> _Snapshot | None:
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
    return _Snapshot(FileRecord(path=name, size=status.st_size, sha256=sha256), status.st_mtime_ns, path)


def _beginning(path: Path, size: int) -> str | None:
    """Hash of the first bytes of a file; None where it has fewer, or is not there."""
    try:
        sha256, found = hash_file(path, size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return sha256 if found == size else None
