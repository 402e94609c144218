"""Copying one artefact from a store: into a folder of a temporary name, every file hashed, then one rename."""

import shutil
from pathlib import Path

from megatron_patches.artefacts.inside import refuse_links_beneath
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    read_manifest,
    verify_files,
    write_manifest,
)
from megatron_patches.artefacts.marks import MARKS
from megatron_patches.artefacts.storage.packing import INDEX, TAR, largest_tar, packed_files, unpack
from megatron_patches.artefacts.storage.store import (
    AnotherArtefact,
    BoundedFile,
    DamagedCopy,
    StorageFull,
    Store,
    joined,
)
from megatron_patches.artefacts.storage.transfer import Options, TransferOutcome, in_parallel, remote_manifest
from megatron_patches.artefacts.unfinished import former_pulling_path, pulling_path
from megatron_patches.atomic_files import create_file, fsync_folder, hash_file
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import readable


def fetch_artefact(store: Store, prefix: str, manifest: Manifest, target: Path, options: Options) -> TransferOutcome:
    """Brings an artefact, or the part of it that the manifest lists, from a store into a folder.

    A pull that was interrupted left a folder `NAME.pulling`; files in it that are right are not fetched again.

    Raises:
        AnotherArtefact: the folder holds another one.
        DamagedCopy: a file there is not what the manifest says, or has the name of a mark.
        Refused: a link lies where the files would be gathered.
        StorageFull: there is less space here than the manifest says.
        TrainyardError: the folder is damaged, or a request failed.
    """
    forged = sorted(MARKS & {file.path for file in manifest.files})
    if forged and manifest.kind == "checkpoint":
        raise DamagedCopy(
            f"{store.at(prefix)} lists {forged[0]}, which would pass for a mark that somebody made here; no "
            "checkpoint has such a file"
        )
    if target.exists():
        return _compare_present(manifest, target)
    if target.is_symlink():
        raise Refused(f"{printable(target)} is a link that leads nowhere; remove it, or bring back what it names")
    unfinished = unfinished_folder(target)
    missing = [file for file in manifest.files if not _is_right(unfinished / file.path, file)]
    refuse_without_space(sum(file.size for file in missing), unfinished)
    try:
        fetch_files(store, prefix, missing, unfinished, options)
        _complete(manifest, unfinished, target)
    except FileNotFoundError:
        if target.exists():  # another pull of the same artefact was first, and took the folder
            return _compare_present(manifest, target)
        raise
    return TransferOutcome("fetched", len(missing), sum(file.size for file in missing))


def refuse_without_space(size: int, folder: Path) -> None:
    """Raises StorageFull where a disk has no room for so many bytes, before the first of them is fetched."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StorageFull(
            f"{printable(folder)}: {readable(size)} are to come, and its disk has {readable(free)} free; free some, or "
            "pull with --into another folder"
        )


def _compare_present(manifest: Manifest, target: Path) -> TransferOutcome:
    present = read_manifest(target / MANIFEST)
    if present.id != manifest.id:
        raise AnotherArtefact(
            f"{printable(target)} holds another {present.kind} ({present.id[:12]}); move it away, or pull elsewhere"
        )
    if problems := verify_files(present, target, hashes=False):
        raise TrainyardError(f"{'; '.join(problems)}. Move {target} away, then pull again")
    if present.status.is_older_than(manifest.status):  # an older status never replaces a newer one
        write_manifest(target / MANIFEST, manifest)
        return TransferOutcome("status renewed")
    return TransferOutcome("present")


def unfinished_folder(target: Path) -> Path:
    """Where a pull gathers what is to lie in a folder, or to be added to it; what an interrupted one left is there.

    Raises:
        Refused: a link lies there.
    """
    folder, former = pulling_path(target), former_pulling_path(target)
    for each in (folder, former):
        refuse_links_beneath(each)
    if former.is_dir() and not folder.exists():
        try:
            former.rename(folder)
        except OSError:
            if not folder.exists():  # else another pull of the same artefact renamed it, or started over
                raise
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch_files(store: Store, prefix: str, files: list[FileRecord], folder: Path, options: Options) -> None:
    """Brings these files of an artefact into a folder, each compared; packed ones too.

    Raises:
        DamagedCopy: a file there is not what the manifest says.
        TrainyardError: a request failed.
    """
    packed = packed_files(store.read(joined(prefix, INDEX)))
    inside = {file.path: file for file in files if file.path in packed}

    def fetch(file: FileRecord) -> None:
        store.fetch(joined(prefix, file.path), folder / file.path, file, options.meter)

    alone = [file for file in files if file.path not in packed]
    in_parallel(fetch, alone, options.parallel)
    if not inside:
        return
    # the tar holds files of the whole artefact, of which `files` may be a part
    whole = remote_manifest(store, prefix)
    limit = largest_tar([file for file in whole.files if file.path in packed] if whole else list(inside.values()))
    tar = folder / TAR
    tar.unlink(missing_ok=True)  # of a pull that was killed
    try:
        with create_file(tar) as content:
            store.receive(joined(prefix, TAR), BoundedFile(content, limit, store.at(prefix, TAR)), options.meter)
        unpack(tar, folder, inside)
    finally:
        tar.unlink(missing_ok=True)
    for file in inside.values():
        if not _is_right(folder / file.path, file):
            raise DamagedCopy(f"{store.at(prefix, TAR)} is damaged at {file.path}; sync with --replace")


def _complete(manifest: Manifest, folder: Path, target: Path) -> None:
    listed = {file.path for file in manifest.files}
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink(missing_ok=True)  # from a pull that was killed
    if problems := verify_files(manifest, folder, hashes=False):
        raise DamagedCopy(f"{'; '.join(problems[:5])}: not all of it arrived; pull again")
    write_manifest(folder / MANIFEST, manifest)
    try:
        folder.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        shutil.rmtree(folder, ignore_errors=True)
    fsync_folder(target.parent)


def _is_right(path: Path, file: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == file.size and hash_file(path)[0] == file.sha256
