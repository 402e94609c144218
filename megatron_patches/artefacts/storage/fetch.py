"""Copying one artefact from a store: into a folder of a temporary name, every file hashed, then one rename."""

import os
import shutil
from pathlib import Path

from megatron_patches.artefacts.manifest import FileRecord, Manifest, read_manifest, verify_files, write_manifest
from megatron_patches.artefacts.storage.packing import INDEX, TAR, packed_files, unpack
from megatron_patches.artefacts.storage.store import Store, TransientFailure
from megatron_patches.artefacts.storage.transfer import MANIFEST, Options, Outcome, in_parallel, retried
from megatron_patches.atomic_files import fsync_folder, hash_file, temporary_path
from megatron_patches.errors import TrainyardError


def fetch_artefact(store: Store, place: str, manifest: Manifest, target: Path, options: Options) -> Outcome:
    """Brings an artefact, or the part of it that the manifest lists, from a store into a folder.

    A pull that was interrupted left a folder `.pull.partial`; files in it that are right are not fetched again.

    Raises:
        TrainyardError: the folder holds another artefact, the copy is damaged, or a request failed at every try.
    """
    if target.exists():
        return _look_at_present(manifest, target)
    partial = target.with_name(f"{target.name}.pull.partial")
    partial.mkdir(parents=True, exist_ok=True)
    missing = [file for file in manifest.files if not _is_right(partial / file.path, file)]
    try:
        _fetch_files(store, place, missing, partial, options)
        _complete(manifest, partial, target)
    except FileNotFoundError:
        if target.exists():  # another pull of the same artefact was first, and took the folder
            return _look_at_present(manifest, target)
        raise
    return Outcome("fetched", len(missing), sum(file.size for file in missing), "sha256 of its bytes")


def _look_at_present(manifest: Manifest, target: Path) -> Outcome:
    present = read_manifest(target / MANIFEST)
    if present.id != manifest.id:
        raise TrainyardError(
            f"{target} holds another {present.kind} ({present.id[:12]}); move it away, or pull elsewhere"
        )
    if problems := verify_files(present, target, hashes=False):
        raise TrainyardError(f"{'; '.join(problems)}. Move {target} away, then pull again")
    if present.status.is_older_than(manifest.status):  # a copy that knows less takes back nothing that was said here
        write_manifest(target / MANIFEST, manifest)
        return Outcome("status renewed")
    return Outcome("present")


def _fetch_files(store: Store, place: str, files: list[FileRecord], partial: Path, options: Options) -> None:
    index = retried(lambda: store.read(f"{place}/{INDEX}"), options)
    packed = packed_files(index)
    inside = [file for file in files if file.path in packed]

    def fetch(file: FileRecord) -> None:
        retried(lambda: _fetch_one(store, f"{place}/{file.path}", partial / file.path, file, options), options)

    alone = [file for file in files if file.path not in packed]
    in_parallel([lambda file=file: fetch(file) for file in alone], options.parallel)  # type: ignore[misc]
    if not inside:
        return
    tar = partial / TAR
    with tar.open("w+b") as content:
        retried(lambda: store.receive(f"{place}/{TAR}", content, options.meter), options)
    unpack(tar, partial, {file.path for file in inside})
    tar.unlink()
    for file in inside:
        if not _is_right(partial / file.path, file):
            raise TrainyardError(f"{store.location}/{place}/{TAR} is damaged at {file.path}; sync with --replace")


def _fetch_one(store: Store, path: str, target: Path, file: FileRecord, options: Options) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(target)
    try:
        with temporary.open("w+b") as content:
            store.receive(path, content, options.meter)
            content.flush()
            os.fsync(content.fileno())
        if hash_file(temporary) != (file.sha256, file.size):
            raise TransientFailure(f"{store.location}/{path} is damaged, or was cut on the way")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _complete(manifest: Manifest, partial: Path, target: Path) -> None:
    listed = {file.path for file in manifest.files}
    for path in [path for path in partial.rglob("*") if path.is_file()]:
        if path.relative_to(partial).as_posix() not in listed:
            path.unlink(missing_ok=True)  # left by a pull that was killed
    write_manifest(partial / MANIFEST, manifest)
    try:
        partial.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        shutil.rmtree(partial, ignore_errors=True)
    fsync_folder(target.parent)


def _is_right(path: Path, file: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == file.size and hash_file(path)[0] == file.sha256


def receive_file(store: Store, path: str, target: Path, file: FileRecord, options: Options) -> None:
    """One file that belongs to no artefact, such as a log; replaces what is there."""
    retried(lambda: _fetch_one(store, path, target, file, options), options)
