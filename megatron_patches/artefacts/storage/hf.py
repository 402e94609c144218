"""hf://: repositories of the Hugging Face hub, through huggingface_hub, which finds its token by itself.

Large files are sent one by one; `commit` makes them appear together, and the hub then states their sha256.
A manifest is a commit of its own behind that.
"""

import hashlib
import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.location import HUB_TYPES, Location
from megatron_patches.artefacts.storage.hf_branch import MAIN, make_branch
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.object_store import connection_failed
from megatron_patches.artefacts.storage.source import check_source
from megatron_patches.artefacts.storage.store import (
    AccessRefused,
    BoundedFile,
    DamagedCopy,
    Entry,
    NotThere,
    Store,
    TransientFailure,
    Upload,
    client_failed,
    refuse_more_entries,
)
from megatron_patches.atomic_files import hash_stream
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import METADATA_BYTES
from megatron_patches.sizes import counted

_READ = 4 << 20
_MISSING = {
    "EntryNotFoundError", "RemoteEntryNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError",
    "BucketNotFoundError",
}  # fmt: skip
_HELP = "run `hf auth login`, or set HF_TOKEN"


class HubStore(Store):
    """A repository of models or a dataset, or a folder in one; it is made, private, when something is first sent."""

    package = "huggingface_hub"

    def __init__(self, location: Location) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        super().__init__(location)
        first, *others = location.path.split("/")
        self._type = HUB_TYPES.get(first, "model")
        organisation, repository, *folder = others if first in HUB_TYPES else [first, *others]
        repository, _, revision = repository.partition("@")
        self._repository, self._revision = f"{organisation}/{repository}", revision or MAIN
        self._folder = "/".join(folder)
        disable_progress_bars()  # ours shows all files together
        # asked for by name: the client reads the variable once, when it is imported
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._api = HfApi(endpoint=self._endpoint)
        self._lock = threading.Lock()
        self._pending: dict[str, tuple[Any, Upload]] = {}
        self._exists = False

    def entries(self, prefix: str) -> dict[str, Entry]:
        root = self._full(prefix)
        beginning = f"{root}/" if root else ""
        found: dict[str, Entry] = {}
        try:
            for number, each in enumerate(self._listed(root), 1):
                refuse_more_entries(self.location, prefix, number)
                if (entry := self._entry(each)) is not None and each.path.startswith(beginning):
                    found[each.path.removeprefix(beginning)] = entry
        except TrainyardError:
            raise
        except Exception as error:
            if self._is_missing(error):
                return {}
            raise self._explain(error) from error
        return found

    def _listed(self, root: str) -> Iterable[Any]:
        """The client's records of what lies beneath a folder; empty text means all."""
        return self._api.list_repo_tree(
            self._repository, path_in_repo=root or None, recursive=True, revision=self._revision, repo_type=self._type
        )

    def _entry(self, record: Any) -> Entry | None:
        """None for a folder."""
        if not hasattr(record, "blob_id"):
            return None
        evidence = {"sha256": record.lfs.sha256} if record.lfs is not None else {"git": record.blob_id}
        return Entry(int(record.size), evidence)

    def read(self, path: str) -> bytes | None:
        content = io.BytesIO()
        try:
            self._fetch(path, BoundedFile(content, METADATA_BYTES, f"{self.location}/{path}"), Meter())
        except FileNotFoundError:
            return None
        return content.getvalue()

    def write(self, path: str, content: bytes) -> None:
        from huggingface_hub import CommitOperationAdd

        self._make_commit([CommitOperationAdd(self._full(path), content)], path)

    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        from huggingface_hub import CommitOperationAdd

        self._make_repository()
        check_source(upload)
        whole = upload.local.stat().st_size == upload.size
        # a path may travel by the hub's own chunked protocol; what must be held back or cut short is read here
        source: Any = str(upload.local) if whole and not meter.holds_back else _Beginning(upload, meter)
        operation = CommitOperationAdd(self._full(path), source)
        try:
            self._api.preupload_lfs_files(self._repository, [operation], revision=self._revision, repo_type=self._type)
        except Exception as error:
            raise self._explain(error) from error
        if isinstance(source, str):
            meter.count(upload.size)
        with self._lock:
            self._pending[path] = (operation, upload)

    def commit(self, prefix: str) -> None:
        with self._lock:
            beginning = f"{prefix}/" if prefix else ""
            sent = {path: each for path, each in self._pending.items() if path.startswith(beginning)}
        if not sent:
            return
        self._make_commit(
            [operation for operation, _ in sent.values()], ": ".join(filter(None, [prefix, counted(len(sent), "file")]))
        )
        entries = self.entries(prefix)
        for path, (_, upload) in sent.items():
            entry = entries.get(path.removeprefix(beginning))
            if entry is None or not self.matches(path, entry, upload):
                raise DamagedCopy(f"{self.location}/{path} is not what was sent, as the hub states it; sync again")
        with self._lock:
            for path in sent:
                del self._pending[path]

    def receive(self, path: str, target: BoundedFile, meter: Meter) -> None:
        start = target.position()
        try:
            self._fetch(path, target, meter)
        except FileNotFoundError:
            raise NotThere(f"{self.location}/{path} is gone; sync it there again") from None
        except TransientFailure:
            target.cut(start)
            raise

    def delete(self, path: str) -> None:
        from huggingface_hub import CommitOperationDelete

        try:
            exists = self._api.file_exists(
                self._repository, self._full(path), revision=self._revision, repo_type=self._type
            )
        except Exception as error:
            raise self._explain(error) from error
        if exists:
            self._make_commit([CommitOperationDelete(self._full(path))], f"{path} removed")

    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        if entry.size != upload.size:
            return False
        if "sha256" in entry.evidence:
            return entry.evidence["sha256"] == upload.sha256
        return entry.evidence.get("git") == _git_hash(upload.local, upload.size)

    def sha256(self, path: str, entry: Entry) -> str:
        if "sha256" in entry.evidence:
            return entry.evidence["sha256"]
        return hashlib.sha256(self.read(path) or b"").hexdigest()

    def credentials(self) -> str:
        from huggingface_hub import constants, get_token

        if get_token() is None:
            raise AccessRefused(f"{self.location}: huggingface_hub finds no token; {_HELP}")
        named = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), None)
        source = f"environment variable {named}" if named else f"file {constants.HF_TOKEN_PATH}"
        try:
            user = self._api.whoami()["name"]
        except Exception as error:
            raise self._explain(error) from error
        return f"{source}; the hub knows it as {user}"

    def _fetch(self, path: str, target: BoundedFile, meter: Meter) -> None:
        from huggingface_hub import HfFileSystem

        filesystem = HfFileSystem(endpoint=self._endpoint, skip_instance_cache=True, use_listings_cache=False)
        try:
            name, revision = self._address(path)
            with filesystem.open(name, "rb", block_size=0, cache_type="none", revision=revision) as source:
                while chunk := source.read(_READ):
                    target.write(chunk)
                    meter.count(len(chunk))
        except TrainyardError:
            raise
        except Exception as error:
            if self._is_missing(error):
                raise FileNotFoundError(path) from None
            raise self._explain(error) from error

    def _make_commit(self, operations: list[Any], message: str) -> None:
        self._make_repository()
        try:
            self._api.create_commit(
                self._repository, operations=operations, commit_message=message, revision=self._revision,
                repo_type=self._type,
            )  # fmt: skip
        except Exception as error:
            raise self._explain(error) from error

    def _make_repository(self) -> None:
        with self._lock:
            if self._exists:
                return
            try:
                self._create()
                if self._revision != MAIN:
                    make_branch(self._api, self._repository, self._type, self._revision, self.location)
            except TrainyardError:
                raise
            except Exception as error:
                raise self._explain(error) from error
            self._exists = True

    def _full(self, path: str) -> str:
        return "/".join(part for part in (self._folder, path) if part)

    def _create(self) -> None:
        self._api.create_repo(self._repository, private=True, exist_ok=True, repo_type=self._type)

    def _address(self, path: str) -> tuple[str, str | None]:
        """What the hub's file system calls a file, and its revision."""
        of_type = "" if self._type == "model" else f"{self._type}s/"
        return f"{of_type}{self._repository}/{self._full(path)}", self._revision

    def _is_missing(self, error: Exception) -> bool:
        return isinstance(error, FileNotFoundError) or type(error).__name__ in _MISSING

    def _explain(self, error: Exception) -> Exception:
        status = _status_of(error)
        if status == 401 or type(error).__name__ == "LocalTokenNotFoundError":
            return AccessRefused(f"{self.location}: the hub refuses the token, or it has expired; {_HELP}")
        if status == 403:
            return AccessRefused(f"{self.location}: the token may not do this; take one with write access, or {_HELP}")
        if status == 404:
            return NotThere(f"{self.location}: there is no such repository or revision; correct the address")
        if status in (408, 409, 412, 429) or status >= 500 or connection_failed(error):
            return TransientFailure(f"{self.location}: {status or type(error).__name__}")
        if isinstance(error, (RuntimeError, OSError)):
            return TransientFailure(f"{self.location}: {type(error).__name__}")
        return client_failed(self.location, error)


def _status_of(error: BaseException | None) -> int:
    """Status of the hub's answer, 0 where there was none.

    Where a repository cannot be made, the client looks whether it is there by an address that it may not understand
    (HfUriError, with an endpoint other than the public one); then the answer to the first request counts.
    """
    if type(error).__name__ == "HfUriError" and error is not None:
        error = error.__context__
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


class _Beginning(io.BufferedIOBase):
    """The first bytes of a file, counted and held back as they are read; it can be read again for another try."""

    def __init__(self, upload: Upload, meter: Meter) -> None:
        self._file = upload.local.open("rb")
        self._size = upload.size
        self._meter = meter

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._file.tell())
        content = self._file.read(left if size is None or size < 0 else min(size, left))
        self._meter.count(len(content))
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            return self._file.seek(self._size + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _git_hash(local: Path, size: int) -> str:
    """The name that git gives a file's content."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with local.open("rb") as file:
        hash_stream(file, digest, size)
    return digest.hexdigest()


STORE = HubStore
