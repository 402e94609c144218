"""Many small files as one tar, where a storage counts files: `packed.tar`, and `packed.json` that says what is in it.

The same files give the same tar, byte for byte, whoever packs them.
"""

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.artefacts.storage.store import DamagedCopy, DamagedSource, Upload, VanishedSource
from megatron_patches.atomic_files import create_file, hash_file
from megatron_patches.errors import Damaged
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import shortened

TAR = "packed.tar"
INDEX = "packed.json"
_OF_A_MEMBER = 8192
"""bytes: a header, an extended one with a path of up to 4,096 bytes, and what fills the last block"""
_OF_A_TAR = 20 << 10
"""bytes: the end, filled up to 10 KiB"""


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
    return {file for file in _parse(index).get("files", []) if isinstance(file, str)}


def packed_hash(index: bytes | None) -> str:
    """sha256 of the tar, by its index; empty without one."""
    return str(_parse(index).get("sha256", ""))


def largest_tar(files: Sequence[FileRecord]) -> int:
    """Bytes that a tar of these files has at most."""
    return sum(file.size for file in files) + _OF_A_MEMBER * len(files) + _OF_A_TAR


def unpack(tar: Path, folder: Path, wanted: Mapping[str, FileRecord]) -> list[str]:
    """Takes the wanted files out of a tar, none larger than its record says; returns those that it had.

    Raises:
        DamagedCopy: it is no tar, or holds a file of another size.
    """
    found: list[str] = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                file = wanted.get(member.name)
                if file is None or member.name in found:
                    continue
                if not member.isreg() or member.issparse() or member.size != file.size:
                    raise DamagedCopy(f"{tar.name} holds {member.name} otherwise than the manifest says")
                _extract(archive, member, folder / file.path)
                found.append(member.name)
    except DamagedCopy:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        reason = shortened(error)  # a chain of a thousand extended headers is a RecursionError
        raise DamagedCopy(f"{tar.name} is damaged ({reason}); sync the artefact again, with --replace") from None
    return found


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    content = archive.extractfile(member)
    assert content is not None, "a plain file has content"
    with content, create_file(target) as file:
        shutil.copyfileobj(content, file)


def _parse(index: bytes | None) -> dict[str, Any]:
    """A damaged index vouches for nothing: its files are sent again."""
    if index is None:
        return {}
    try:
        content = parse_object(index, INDEX)
    except Damaged:
        return {}
    return content if isinstance(content.get("files"), list) else {}
