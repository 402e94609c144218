"""hf://buckets/: buckets of the Hugging Face hub, which keep files without revisions.

The hub states of each file the hash by which Xet, its storage, knows the content; hf_xet computes the same here. A
file appears as soon as it is sent, and the manifest behind all others.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.storage.hf import HubStore
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.source import check_source
from megatron_patches.artefacts.storage.store import (
    BoundedFile,
    Entry,
    TransferDiffers,
    Upload,
)
from megatron_patches.errors import TrainyardError


class BucketStore(HubStore):
    """A bucket, or a folder in one; it is made, private, when something is first sent."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        if not hasattr(self._api, "batch_bucket_files"):
            raise TrainyardError(
                f"{location}: the installed huggingface_hub knows no buckets; install a newer one, or name a "
                "repository: hf://organisation/repository"
            )

    def _listed(self, root: str) -> Iterable[Any]:
        return self._api.list_bucket_tree(self._repository, prefix=root or None, recursive=True)

    def _entry(self, record: Any) -> Entry | None:
        return Entry(int(record.size), {"xet": record.xet_hash}) if hasattr(record, "xet_hash") else None

    def write(self, path: str, content: bytes) -> None:
        self._change(add=[(content, self._full(path))])

    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        check_source(upload)
        with tempfile.TemporaryDirectory() as folder:
            source = upload.local
            if source.stat().st_size != upload.size:  # it grows: the client sends whole files only
                source = _beginning(upload, Path(folder) / "beginning")
            self._change(add=[(str(source), self._full(path))])
        meter.count(upload.size)
        entry = self._stat(path)
        if entry is None or not self.matches(path, entry, upload):
            raise TransferDiffers(f"{self.location}/{path} is not what was sent")

    def commit(self, prefix: str) -> None:
        """Everything that was sent is there already."""

    def delete(self, path: str) -> None:
        if self._stat(path) is not None:
            self._change(delete=[self._full(path)])

    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        if entry.size != upload.size:
            return False
        if upload.local.stat().st_size == upload.size and entry.evidence.get("xet") == _xet_hash(upload.local):
            return True
        return self.sha256(path, entry) == upload.sha256

    def sha256(self, path: str, entry: Entry) -> str:
        with tempfile.TemporaryFile() as content:
            self.receive(path, BoundedFile(content, entry.size, f"{self.location}/{path}"), Meter())
            content.seek(0)
            return hashlib.file_digest(content, "sha256").hexdigest()

    def _stat(self, path: str) -> Entry | None:
        try:
            found = list(self._api.get_bucket_paths_info(self._repository, [self._full(path)]))
        except Exception as error:
            if self._is_missing(error):
                return None
            raise self._explain(error) from error
        return self._entry(found[0]) if found else None

    def _change(self, **operations: Any) -> None:
        self._make_repository()
        try:
            self._api.batch_bucket_files(self._repository, **operations)
        except Exception as error:
            raise self._explain(error) from error

    def _create(self) -> None:
        self._api.create_bucket(self._repository, private=True, exist_ok=True)

    def _address(self, path: str) -> tuple[str, str | None]:
        return f"buckets/{self._repository}/{self._full(path)}", None


def _xet_hash(local: Path) -> str:
    import hf_xet

    return str(hf_xet.hash_files([str(local)])[0].hash)


def _beginning(upload: Upload, target: Path) -> Path:
    with upload.local.open("rb") as source, target.open("xb") as copy:
        left = upload.size
        while left and (chunk := source.read(min(left, 4 << 20))):
            copy.write(chunk)
            left -= len(chunk)
    shutil.copystat(upload.local, target)
    return target


STORE = BucketStore
