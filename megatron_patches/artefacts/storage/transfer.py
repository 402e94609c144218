"""Copying one artefact to a store: what is missing, several files at once, each compared, the manifest last."""

import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from megatron_patches.artefacts.manifest import FileRecord, Manifest, parse_manifest
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.packing import INDEX, TAR, packed_files, write_tar
from megatron_patches.artefacts.storage.store import Entry, Store, TransientFailure, Upload
from megatron_patches.errors import TrainyardError

MANIFEST = "manifest.json"
_LONGEST_PAUSE = 30.0
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Options:
    """How to copy."""

    parallel: int = 4
    """files at once"""
    tries: int = 5
    """of each request"""
    replace: bool = False
    """another artefact that lies in the place may be replaced; files of the same one are compared by hash"""
    pack_below: int = 0
    """bytes: smaller files travel in one tar; 0 means none does"""
    pause: float = 0.5
    """seconds before the second try; doubled before each further one"""
    meter: Meter = field(default_factory=Meter)


@dataclass(frozen=True)
class Outcome:
    """What became of one artefact."""

    word: Literal["sent", "present", "status renewed", "fetched"]
    files: int = 0
    """that moved"""
    size: int = 0
    """bytes of these"""
    how: str = ""
    """by what the copy was compared"""


def send_artefact(
    store: Store, place: str, manifest: Manifest, folder: Path, options: Options, doubted: bool = False
) -> Outcome:
    """Brings a copy of an artefact to a place of a store. Files that are there already, by hash, stay.

    Args:
        doubted: the copy was found damaged once, so its manifest vouches for nothing and every file is compared.

    Raises:
        TrainyardError: the place holds another artefact, a file here is not what the manifest says, or a request
            failed at every try. What was copied until then stays, and the next call goes on behind it.
        VanishedSource: the artefact was removed here meanwhile.
    """
    there = remote_manifest(store, place, options)
    entries = retried(lambda: store.entries(place), options)
    if there is not None and there.id != manifest.id:
        if not options.replace:
            raise TrainyardError(
                f"{store.location}/{place} holds another {there.kind} ({there.id[:12]}, made {there.created}), not "
                f"{manifest.id[:12]}; --replace puts this one in its place"
            )
        retried(lambda: store.delete(f"{place}/{MANIFEST}"), options)
        there = None
    vouched = there is not None and not doubted and not options.replace
    if doubted or options.replace:
        for name in entries.keys() & {INDEX, TAR}:  # readers would go on taking files from it that are sent loose now
            retried(lambda name=name: store.delete(f"{place}/{name}"), options)  # type: ignore[misc]
            del entries[name]
    missing = _missing(store, place, manifest, entries, vouched, folder, options)
    if missing:
        _send_files(store, place, missing, folder, options)
        _check_sizes(store, place, manifest, options)
    renewed = there is not None and there.status != manifest.status and not manifest.status.is_older_than(there.status)
    if there is None or renewed:
        retried(lambda: store.write(f"{place}/{MANIFEST}", as_bytes(manifest)), options)
    size = sum(file.size for file in missing)
    word: Literal["sent", "present", "status renewed"] = "sent" if missing or there is None else "present"
    return Outcome("status renewed" if word == "present" and renewed else word, len(missing), size, "as sent")


def check_artefact(store: Store, place: str, expected: str, options: Options, hashes: bool = True) -> list[str]:
    """What is wrong with a copy: one sentence for each missing or different file; empty when it is whole.

    Args:
        expected: id that the artefact there must have.
        hashes: compare every file's content, by the storage's own word where it gives a sha256, else by reading it.
    """
    there = remote_manifest(store, place, options)
    if there is None:
        return [f"{store.location}/{place} has no manifest"]
    if there.id != expected:
        return [f"{store.location}/{place} holds another artefact, {there.id[:12]}"]
    entries = retried(lambda: store.entries(place), options)
    packed = packed_files(retried(lambda: store.read(f"{place}/{INDEX}"), options) if INDEX in entries else None)
    problems = []
    for file in there.files:
        entry = entries.get(file.path)
        if entry is None and file.path in packed and TAR in entries:
            continue
        if entry is None:
            problems.append(f"{store.location}/{place}/{file.path} is missing")
        elif entry.size != file.size:
            problems.append(f"{store.location}/{place}/{file.path} has {entry.size:,} bytes, not {file.size:,}")
        elif hashes and (found := _hash(store, f"{place}/{file.path}", entry, options)) != file.sha256:
            problems.append(f"{store.location}/{place}/{file.path} has sha256 {found}, not {file.sha256}")
    if hashes and packed and TAR in entries:
        problems += _tar_problems(store, place, entries[TAR], options)
    return problems


def remote_manifest(store: Store, place: str, options: Options) -> Manifest | None:
    """The manifest at a place; None where there is none.

    Raises:
        TrainyardError: what lies there is no manifest, or was edited.
    """
    content = retried(lambda: store.read(f"{place}/{MANIFEST}"), options)
    return None if content is None else parse_manifest(content, f"{store.location}/{place}/{MANIFEST}")


def retried(action: Callable[[], _Value], options: Options) -> _Value:
    """The result of an action that is tried again, after growing pauses, while it fails in a way that may pass.

    Raises:
        TrainyardError: it failed at every try.
    """
    for attempt in range(1, options.tries + 1):
        try:
            return action()
        except TransientFailure as failure:
            if attempt == options.tries:
                raise TrainyardError(
                    f"{failure}, at each of {attempt} tries; look at the connection, then sync again: it goes on where "
                    "it stopped"
                ) from failure
            time.sleep(min(_LONGEST_PAUSE, options.pause * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
    raise AssertionError("there is at least one try")


def in_parallel(actions: Sequence[Callable[[], None]], parallel: int) -> None:
    """Runs actions in so many threads; after the first error no further one is begun, and the error is raised."""
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        futures = [pool.submit(action) for action in actions]
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
    store: Store, place: str, manifest: Manifest, entries: dict[str, Entry], vouched: bool, folder: Path,
    options: Options,
) -> list[FileRecord]:  # fmt: skip
    """Files that have to move. Beneath a manifest of the same artefact a file of the right size is right: it was
    compared before that manifest was written. Without one, its hash is looked at.
    """
    index = retried(lambda: store.read(f"{place}/{INDEX}"), options) if INDEX in entries and TAR in entries else None
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
            path = f"{place}/{file.path}"
            if not retried(lambda path=path, entry=entry, upload=upload: store.matches(path, entry, upload), options):  # type: ignore[misc]
                missing.append(file)
    return missing


def _send_files(store: Store, place: str, files: Sequence[FileRecord], folder: Path, options: Options) -> None:
    small = [file for file in files if file.size < options.pack_below]
    if len(small) < 2:
        small = []
    large = [file for file in files if file not in small]

    def send(file: FileRecord) -> None:
        upload = Upload(folder / file.path, file.size, file.sha256)
        retried(lambda: store.send(upload, f"{place}/{file.path}", options.meter), options)

    in_parallel([lambda file=file: send(file) for file in large], options.parallel)  # type: ignore[misc]
    if small:
        with tempfile.TemporaryDirectory() as temporary:
            upload = write_tar(Path(temporary) / TAR, folder, small)
            retried(lambda: store.send(upload, f"{place}/{TAR}", options.meter), options)
            retried(lambda: store.settle(place), options)
        content = json.dumps({"sha256": upload.sha256, "size": upload.size, "files": [file.path for file in small]})
        retried(lambda: store.write(f"{place}/{INDEX}", content.encode()), options)
    retried(lambda: store.settle(place), options)


def _check_sizes(store: Store, place: str, manifest: Manifest, options: Options) -> None:
    entries = retried(lambda: store.entries(place), options)
    packed = packed_files(retried(lambda: store.read(f"{place}/{INDEX}"), options) if INDEX in entries else None)
    wrong = [
        file.path
        for file in manifest.files
        if file.path not in packed and (file.path not in entries or entries[file.path].size != file.size)
    ]
    if wrong:
        raise TrainyardError(
            f"{store.location}/{place}: {', '.join(wrong[:5])} vanished after they were sent: somebody removes files "
            "there. Nothing was declared whole; sync again"
        )


def _hash(store: Store, path: str, entry: Entry, options: Options) -> str:
    return retried(lambda: store.sha256(path, entry), options)[0]


def _tar_problems(store: Store, place: str, entry: Entry, options: Options) -> list[str]:
    content = retried(lambda: store.read(f"{place}/{INDEX}"), options)
    stated = json.loads(content)["sha256"] if content else ""
    found = _hash(store, f"{place}/{TAR}", entry, options)
    return [] if found == stated else [f"{store.location}/{place}/{TAR} has sha256 {found}, not {stated}"]
