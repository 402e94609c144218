"""Copying one artefact to a store: what is missing, several files at once, each compared, the manifest last."""

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from megatron_patches.artefacts.manifest import MANIFEST, FileRecord, Manifest, parse_manifest
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.packing import INDEX, TAR, packed_files, packed_hash, write_tar
from megatron_patches.artefacts.storage.store import AnotherArtefact, Entry, NotThere, Store, Upload, joined

TransferResult = Literal["sent", "present", "status renewed", "fetched"]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Options:
    """How to copy."""

    parallel: int = 4
    """files at once"""
    replace: bool = False
    """another artefact that lies beneath the prefix may be replaced; files of the same one are compared by hash"""
    pack_below: int = 0
    """bytes: smaller files travel in one tar; 0 means none does"""
    meter: Meter = field(default_factory=Meter)


@dataclass(frozen=True)
class TransferOutcome:
    """What became of one artefact."""

    result: TransferResult
    files: int = 0
    """that moved"""
    size: int = 0
    """bytes of these"""


def send_artefact(
    store: Store, prefix: str, manifest: Manifest, folder: Path, options: Options, doubted: bool = False
) -> TransferOutcome:
    """Brings a copy of an artefact to a prefix of a store. Files that are there already, by hash, stay.

    Args:
        doubted: the copy was found damaged once, so its manifest vouches for nothing and every file is compared.

    Raises:
        AnotherArtefact: it lies beneath the prefix, and `options.replace` is not set.
        DamagedSource: a file here is not what the manifest says.
        VanishedSource: the artefact was removed here meanwhile.
        TrainyardError: a request failed. What was copied until then stays, and the next call goes on behind it.
    """
    remote = remote_manifest(store, prefix)
    entries = store.entries(prefix)
    if remote is not None and remote.id != manifest.id:
        if not options.replace:
            raise AnotherArtefact(
                f"{store.at(prefix)} holds another {remote.kind} ({remote.id[:12]}, made {remote.created}), "
                f"not {manifest.id[:12]}; --replace puts this one in its place"
            )
        store.delete(joined(prefix, MANIFEST))
        remote = None
    vouched = remote is not None and not doubted and not options.replace
    if doubted or options.replace:
        for name in entries.keys() & {INDEX, TAR}:  # readers would go on taking files from it that are sent loose now
            store.delete(joined(prefix, name))
            del entries[name]
    missing = _missing(store, prefix, manifest, entries, vouched, folder)
    if missing:
        _send_files(store, prefix, missing, folder, options)
        _check_sizes(store, prefix, manifest)
    renewed = (
        remote is not None and remote.status != manifest.status and not manifest.status.is_older_than(remote.status)
    )
    if remote is None or renewed:
        store.write(joined(prefix, MANIFEST), as_bytes(manifest))
    unmoved: TransferResult = "status renewed" if renewed else "present"
    result: TransferResult = "sent" if missing or remote is None else unmoved
    return TransferOutcome(result, len(missing), sum(file.size for file in missing))


def check_artefact(store: Store, prefix: str, expected: str, hashes: bool = True) -> list[str]:
    """What is wrong with a copy: one sentence for each missing or different file; empty when it is whole.

    Args:
        expected: id that the artefact there must have.
        hashes: compare every file's content, by the sha256 that the storage states, else by reading it.

    Raises:
        TrainyardError: what lies there has no manifest that can be read, or a request failed.
    """
    remote = remote_manifest(store, prefix)
    if remote is None:
        return [f"{store.at(prefix)} has no manifest"]
    if remote.id != expected:
        return [f"{store.at(prefix)} holds another artefact, {remote.id[:12]}"]
    entries = store.entries(prefix)
    packed = packed_files(store.read(joined(prefix, INDEX)) if INDEX in entries else None)
    problems = []
    for file in remote.files:
        entry = entries.get(file.path)
        if entry is None and file.path in packed and TAR in entries:
            continue
        if entry is None:
            problems.append(f"{store.at(prefix, file.path)} is missing")
        elif entry.size != file.size:
            problems.append(f"{store.at(prefix, file.path)} has {entry.size:,} bytes, not {file.size:,}")
        elif hashes and (found := store.sha256(joined(prefix, file.path), entry)) != file.sha256:
            problems.append(f"{store.at(prefix, file.path)} has sha256 {found}, not {file.sha256}")
    if hashes and packed and TAR in entries:
        problems += _tar_problems(store, prefix, entries[TAR])
    return problems


def remote_manifest(store: Store, prefix: str) -> Manifest | None:
    """The manifest beneath a prefix; None where there is none.

    Raises:
        TrainyardError: what lies there is no manifest, or was edited.
    """
    content = store.read(joined(prefix, MANIFEST))
    return None if content is None else parse_manifest(content, store.at(prefix, MANIFEST))


def in_parallel(action: Callable[[_Item], None], items: Sequence[_Item], parallel: int) -> None:
    """Runs an action on every item in `parallel` threads; the first error stops it, and is raised."""
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def as_bytes(manifest: Manifest) -> bytes:
    """A manifest as it is written."""
    return (json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _missing(
    store: Store, prefix: str, manifest: Manifest, entries: dict[str, Entry], vouched: bool, folder: Path
) -> list[FileRecord]:
    """Files that have to move. Beneath a manifest of the same artefact a file of the right size is right: it was
    compared before that manifest was written. Without one, its hash is looked at.
    """
    index = store.read(joined(prefix, INDEX)) if INDEX in entries and TAR in entries else None
    packed = packed_files(index) if vouched else set()
    missing = []
    for file in manifest.files:
        entry = entries.get(file.path)
        if file.path in packed:
            continue
        if entry is None or entry.size != file.size:
            missing.append(file)
        elif not vouched:
            upload = Upload(folder / file.path, file.size, file.sha256)
            if not store.matches(joined(prefix, file.path), entry, upload):
                missing.append(file)
    return missing


def _send_files(store: Store, prefix: str, files: Sequence[FileRecord], folder: Path, options: Options) -> None:
    small = [file for file in files if file.size < options.pack_below]
    if len(small) < 2:
        small = []
    large = [file for file in files if file not in small]

    def send(file: FileRecord) -> None:
        upload = Upload(folder / file.path, file.size, file.sha256)
        store.send(upload, joined(prefix, file.path), options.meter)

    in_parallel(send, large, options.parallel)
    if small:
        with tempfile.TemporaryDirectory() as temporary:
            upload = write_tar(Path(temporary) / TAR, folder, small)
            store.send(upload, joined(prefix, TAR), options.meter)
            store.commit(prefix)
        content = json.dumps({"sha256": upload.sha256, "size": upload.size, "files": [file.path for file in small]})
        store.write(joined(prefix, INDEX), content.encode())
    store.commit(prefix)


def _check_sizes(store: Store, prefix: str, manifest: Manifest) -> None:
    entries = store.entries(prefix)
    packed = packed_files(store.read(joined(prefix, INDEX)) if INDEX in entries else None)
    wrong = [
        file.path
        for file in manifest.files
        if file.path not in packed and (file.path not in entries or entries[file.path].size != file.size)
    ]
    if wrong:
        raise NotThere(
            f"{store.at(prefix)}: {', '.join(wrong[:5])} vanished after they were sent: somebody removes files "
            "there. Nothing was declared whole; sync again"
        )


def _tar_problems(store: Store, prefix: str, entry: Entry) -> list[str]:
    stated = packed_hash(store.read(joined(prefix, INDEX)))
    found = store.sha256(joined(prefix, TAR), entry)
    return [] if found == stated else [f"{store.at(prefix, TAR)} has sha256 {found}, not {stated}"]
