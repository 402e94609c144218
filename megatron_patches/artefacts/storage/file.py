"""file://: a folder of this machine, or of a file system that it shares with others."""

import errno
import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.source import check_source
from megatron_patches.artefacts.storage.store import (
    NO_SPACE,
    AccessRefused,
    BoundedFile,
    DamagedCopy,
    Entry,
    NotThere,
    StorageFull,
    Store,
    TransferDiffers,
    TransientFailure,
    Upload,
    VanishedSource,
    refuse_more_entries,
)
from megatron_patches.atomic_files import (
    TEMPORARY,
    fsync_folder,
    hash_file,
    open_plain,
    temporary_path,
    write_atomically,
)
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable

_CHUNK = 1 << 20  # what was just written is read back from the processor's cache: 8 MiB took a third longer
_NOT_BY_KERNEL = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""copy_file_range refuses some pairs of file systems"""
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_NO_FILE = {errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EEXIST}
"""a folder, link, pipe, socket or device has the name: the same again gets the same"""


class FolderStore(Store):
    """Files are copied by the kernel under a temporary name, read back and hashed, then renamed."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._root = Path(location.path)
        self._lock = threading.Lock()
        self._not_durable: set[Path] = set()

    def entries(self, prefix: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        waiting: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(self._root / prefix), "", ())]
        folders = 0
        while waiting:
            folder, inside, above = waiting.pop()
            folders += 1
            try:
                status = os.stat(folder)  # noqa: PTH116  a million folders
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    continue  # links lead in a circle
                with os.scandir(folder) as entries:
                    for entry in entries:
                        refuse_more_entries(self.location, prefix, len(found) + folders + len(waiting))
                        kind = _kind(entry)
                        if kind == "folder":
                            waiting.append((entry.path, f"{inside}{entry.name}/", (*above, identity)))
                        elif kind == "file" and not entry.name.endswith(TEMPORARY):
                            with suppress(FileNotFoundError):  # removed meanwhile: the others are there all the same
                                found[inside + entry.name] = Entry(entry.stat().st_size)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _explain(error, Path(folder)) from error
        return found

    def read(self, path: str) -> bytes | None:
        try:
            return read_bounded(self._root / path)
        except Missing:
            return None
        except TrainyardError as error:
            raise DamagedCopy(f"{error}: remove it there, then sync again") from None

    def write(self, path: str, content: bytes) -> None:
        target = self._root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
        except OSError as error:
            raise _explain(error, target) from error

    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        target = self._root / path
        temporary = temporary_path(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if _copy(upload, temporary, meter) != upload.sha256:
                check_source(upload)
                raise TransferDiffers(f"the copy at {path} differs from what was copied")
            temporary.replace(target)
            with self._lock:
                self._not_durable.add(target)
        except OSError as error:
            raise _explain(error, target) from error
        finally:
            with suppress(NotADirectoryError):  # a file where a folder is expected: there is nothing to tidy up
                temporary.unlink(missing_ok=True)

    def commit(self, prefix: str) -> None:
        """Waits for the disk, once for all files: the manifest that vouches for them is written behind this."""
        root = self._root / prefix
        with self._lock:
            written = {path for path in self._not_durable if path.is_relative_to(root)}
        try:
            for path in sorted(written):
                _flush(path)
            for parent in {path.parent for path in written}:
                fsync_folder(parent)
        except OSError as error:
            raise _explain(error, root) from error
        with self._lock:
            self._not_durable -= written

    def receive(self, path: str, target: BoundedFile, meter: Meter) -> None:
        start = target.position()
        try:
            with open_plain(self._root / path) as file:
                while chunk := file.read(_CHUNK):
                    target.write(chunk)
                    meter.count(len(chunk))
        except FileNotFoundError:
            raise NotThere(f"{self.location}/{path} is gone; sync it there again") from None
        except OSError as error:
            target.cut(start)
            raise _explain(error, self._root / path) from error

    def delete(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        return entry.size == upload.size and self.sha256(path, entry) == upload.sha256

    def sha256(self, path: str, entry: Entry) -> str:
        try:
            return hash_file(self._root / path, entry.size)[0]
        except FileNotFoundError:
            raise NotThere(f"{self.location}/{path} is gone; sync it there again") from None
        except OSError as error:
            raise _explain(error, self._root / path) from error

    def credentials(self) -> str:
        folder = next(path for path in (self._root, *self._root.parents) if path.exists())
        if not os.access(folder, os.W_OK):
            raise AccessRefused(f"{self.location}: {folder} may not be written to; ask its owner, or name another")
        return f"file permissions: {folder} may be written to"


def _explain(error: OSError, path: Path) -> Exception:
    target = printable(path)
    if error.errno in NO_SPACE:
        return StorageFull(f"{target}: {error.strerror}; free space there and sync again: it goes on")
    if error.errno in _NOT_ALLOWED:
        return AccessRefused(f"{target}: {error.strerror}; ask its owner for permission, or name another location")
    if error.errno in _NO_FILE:
        return DamagedCopy(f"{target}: {error.strerror}, where a plain file or folder must lie; remove it there")
    return TransientFailure(f"{target}: {error.strerror}")


def _kind(entry: "os.DirEntry[str]") -> str | None:
    """None for a link that leads nowhere, and for pipes and devices: to a listing they are not there."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else None
    except OSError:
        return None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(upload: Upload, target: Path, meter: Meter) -> str:
    """Copies the first bytes of a file and reads each piece back; the hash of what is there.

    The hash of the copy speaks for both sides, so no byte is hashed twice.
    """
    digest = hashlib.sha256()
    try:
        plain = open_plain(upload.local)
    except FileNotFoundError:
        raise VanishedSource(str(upload.local)) from None
    with plain:
        source = plain.fileno()
        copy = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            done, piece = 0, memoryview(bytearray(min(_CHUNK, max(upload.size, 1))))
            while done < upload.size:
                moved = _move(source, copy, done, min(_CHUNK, upload.size - done))
                if moved == 0 or os.preadv(copy, [piece[:moved]], done) != moved:
                    break  # shorter than it should be: the hash will differ
                digest.update(piece[:moved])
                done += moved
                meter.count(moved)
        finally:
            os.close(copy)
    return digest.hexdigest()


def _move(source: int, copy: int, offset: int, size: int) -> int:
    try:
        return os.copy_file_range(source, copy, size, offset, offset)
    except OSError as error:
        if error.errno not in _NOT_BY_KERNEL:
            raise
        return os.pwrite(copy, os.pread(source, size, offset), offset)


STORE = FolderStore
