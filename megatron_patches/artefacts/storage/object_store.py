"""What S3 and Google Cloud Storage share: objects behind an fsspec client, compared by the hash that the server states.

A server states an MD5, of the object or of its parts. Where that does not fit, the object is read back and its sha256
decides: an encrypted bucket states something else though the content is right.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.storage.meter import Meter, MeteredFile
from megatron_patches.artefacts.storage.store import (
    BoundedFile,
    DamagedCopy,
    DamagedSource,
    Entry,
    NotThere,
    Store,
    TransferDiffers,
    TransientFailure,
    Upload,
    VanishedSource,
    refuse_more_entries,
)
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import METADATA_BYTES

PART = 64 << 20
"""bytes of a part of a large upload"""
_READ = 4 << 20
_Value = TypeVar("_Value")


class ObjectStore(Store):
    """Files as objects of a bucket."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._filesystem = self._open()

    @abstractmethod
    def _open(self) -> Any:
        """The fsspec client; it finds credentials in its own places."""

    @abstractmethod
    def _explain(self, error: Exception) -> Exception:
        """What an error of the client means: TransientFailure, or a TrainyardError with its remedy."""

    @abstractmethod
    def _evidence(self, info: dict[str, Any]) -> dict[str, str]:
        """What the server states of an object's content, from the client's own record of it."""

    @abstractmethod
    def _expected(self, local: Path, size: int, stated: dict[str, str]) -> dict[str, str]:
        """What the server would state of a local file's content."""

    def entries(self, prefix: str) -> dict[str, Entry]:
        root = self._full(prefix)

        def look() -> dict[str, Any]:
            self._filesystem.invalidate_cache()
            try:
                return self._filesystem.find(root, detail=True)
            except FileNotFoundError:
                return {}

        found = self._try(look)
        refuse_more_entries(self.location, prefix, len(found))
        return {
            path[len(root) + 1 :]: Entry(int(info["size"]), self._evidence(info))
            for path, info in found.items()
            if path.startswith(f"{root}/")
        }

    def read(self, path: str) -> bytes | None:
        entry = self._stat(path)
        if entry is None:
            return None
        if entry.size > METADATA_BYTES:
            raise DamagedCopy(
                f"{self.location}/{path} has {entry.size:,} bytes; at most {METADATA_BYTES:,} are read of such a file"
            )

        def look() -> bytes | None:
            try:
                return self._filesystem.cat_file(self._full(path))
            except FileNotFoundError:
                return None

        return self._try(look)

    def write(self, path: str, content: bytes) -> None:
        self._try(lambda: self._filesystem.pipe_file(self._full(path), content))
        if self._try(lambda: self._filesystem.cat_file(self._full(path))) != content:
            raise TransferDiffers(f"{self.location}/{path} does not read back as it was written")

    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        self._try(lambda: self._send(upload, self._full(path), meter))
        entry = self._stat(path)
        if entry is None or not self.matches(path, entry, upload):
            raise TransferDiffers(f"{self.location}/{path} is not what was sent")

    def _send(self, upload: Upload, full: str, meter: Meter) -> None:
        digest, sent = hashlib.sha256(), 0
        try:
            source = MeteredFile(str(upload.local), upload.size, meter)
        except FileNotFoundError:
            raise VanishedSource(str(upload.local)) from None
        with source:
            target = self._filesystem.open(full, "wb", block_size=PART)
            try:
                while chunk := source.read(_READ):
                    digest.update(chunk)
                    sent += len(chunk)
                    target.write(chunk)
                if digest.hexdigest() != upload.sha256:
                    raise DamagedSource(
                        f"{upload.local} is not what its manifest says ({sent} bytes, sha256 "
                        f"{digest.hexdigest()[:12]}, not {upload.sha256[:12]}); it was not copied. Restore it"
                    )
                target.close()
            except BaseException:
                _abort(target)
                raise

    def receive(self, path: str, target: BoundedFile, meter: Meter) -> None:
        def fetch() -> None:
            start = target.position()
            try:
                with self._filesystem.open(self._full(path), "rb", block_size=_READ, cache_type="readahead") as source:
                    while chunk := source.read(_READ):
                        target.write(chunk)
                        meter.count(len(chunk))
            except FileNotFoundError:
                raise NotThere(f"{self.location}/{path} is gone; sync it there again") from None
            except Exception:
                target.cut(start)
                raise

        self._try(fetch)

    def delete(self, path: str) -> None:
        def remove() -> None:
            try:
                self._filesystem.rm_file(self._full(path))
            except FileNotFoundError:
                return

        self._try(remove)

    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        if entry.size != upload.size:
            return False
        expected = self._expected(upload.local, upload.size, entry.evidence)
        if expected and all(entry.evidence.get(name) == value for name, value in expected.items()):
            return True
        return self.sha256(path, entry) == upload.sha256

    def sha256(self, path: str, entry: Entry) -> str:
        def read() -> str:
            digest = hashlib.sha256()
            with self._filesystem.open(self._full(path), "rb", block_size=_READ, cache_type="readahead") as source:
                while chunk := source.read(_READ):
                    digest.update(chunk)
            return digest.hexdigest()

        return self._try(read)

    def _stat(self, path: str) -> Entry | None:
        def look() -> Entry | None:
            self._filesystem.invalidate_cache()
            try:
                info = self._filesystem.info(self._full(path))
            except FileNotFoundError:
                return None
            return Entry(int(info["size"]), self._evidence(info))

        return self._try(look)

    def _full(self, path: str) -> str:
        return f"{self.location.path}/{path}" if path else self.location.path

    def _try(self, action: Callable[[], _Value]) -> _Value:
        try:
            return action()
        except (TrainyardError, TransientFailure, VanishedSource):
            raise
        except Exception as error:
            raise self._explain(error) from error


def md5_of_parts(local: Path, size: int, part: int) -> tuple[str, str, int]:
    """MD5 of the first bytes of a file, MD5 of the MD5s of its parts, and the number of parts."""
    whole, parts, count = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False), 0
    with local.open("rb") as file:
        left = size
        while left or count == 0:
            piece = hashlib.md5(usedforsecurity=False)
            inside = min(part, left)
            while inside and (chunk := file.read(min(_READ, inside))):
                piece.update(chunk)
                if size <= part:
                    whole.update(chunk)
                inside -= len(chunk)
                left -= len(chunk)
            parts.update(piece.digest())
            count += 1
            if inside:
                break  # the file became shorter: the hash will differ
    return whole.hexdigest(), parts.hexdigest(), count


def _abort(target: Any) -> None:
    """Ends an upload without making the object appear."""
    target.closed = True  # closing would finish it
    with suppress(Exception):  # the server forgets parts by itself; the first error is the one to show
        target.discard()


def connection_failed(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of the network: a cut, a refusal, a time-out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ConnectionError, TimeoutError, EOFError)):
            return True
        module = type(seen).__module__.split(".")[0]
        if (
            module in ("aiohttp", "httpx", "httpx2", "httpcore", "urllib3", "requests")
            and "Invalid" not in type(seen).__name__
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
