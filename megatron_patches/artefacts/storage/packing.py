"""Many small files as one tar, where a storage counts files: `packed.tar`, and `packed.json` that says what is in it.

The same files give the same tar, byte for byte, whoever packs them.
"""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.artefacts.storage.store import DamagedCopy, DamagedSource, Upload, VanishedSource
from megatron_patches.atomic_files import hash_file

TAR = "packed.tar"
INDEX = "packed.json"


def write_tar(target: Path, folder: Path, files: Sequence[FileRecord]) -> Upload:
    """Packs files of a folder, by name, without owners and times.

    Raises:
        VanishedSource: a file was removed meanwhile.
        DamagedSource: a file is not what its record says.
    """
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(files, key=lambda file: file.path):
            path = folder / file.path
            if not path.exists():
                raise VanishedSource(str(path))
            if hash_file(path) != (file.sha256, file.size):
                raise DamagedSource(f"{path} is not what its manifest says; it was not copied. Restore it")
            info = tarfile.TarInfo(file.path)
            info.size, info.mode = file.size, 0o644
            with path.open("rb") as content:
                tar.addfile(info, content)
    sha256, size = hash_file(target)
    return Upload(target, size, sha256)


def packed_files(index: bytes | None) -> set[str]:
    """Paths of the files that a tar holds, by its index; none without one."""
    if index is None:
        return set()
    try:
        return set(json.loads(index)["files"])
    except (ValueError, KeyError, TypeError):
        return set()  # a damaged index vouches for nothing: its files are sent again


def unpack(tar: Path, folder: Path, wanted: set[str]) -> list[str]:
    """Takes the wanted files out of a tar; returns those that it had.

    Raises:
        DamagedCopy: it is no tar.
    """
    found = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile() and member.name in wanted:
                    archive.extract(member, folder, filter="data")
                    found.append(member.name)
    except tarfile.TarError as error:
        raise DamagedCopy(f"{tar.name} is damaged ({error}); sync the artefact again, with --replace") from None
    return found
