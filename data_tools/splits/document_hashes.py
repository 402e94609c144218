"""The hashes of a dataset's documents on disk: `PREFIX.hashes` and its manifest, made again at any time.

`PREFIX.hashes`, little-endian: magic (8 bytes), version of the checksum's formula (uint64), then the checksum of each
document (`data_tools.datasets.checksums`) in file order, uint64 [documents]. Its manifest is written last, and names
the dataset as the one parent: a file without a manifest, or of another dataset, counts as none.
"""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.checksums import VERSION, token_checksums
from data_tools.datasets.derived import place_to_write, places, written_whole
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path
from megatron_patches.artefacts.manifest import (
    FileRecord,
    Kind,
    Manifest,
    build_manifest,
    read_manifest,
    write_manifest,
)
from megatron_patches.atomic_files import HashingWriter, fsync_folder, open_plain, temporary_path
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.mapped import mapped
from megatron_patches.foreign.printable import printable, shortened

ENDING = "hashes"
KIND: Kind = "document-hashes"
MAGIC = b"TYHASHES"
HEADER = struct.Struct("<8sQ")
DOCUMENTS_AT_ONCE = 1 << 16


class HashingProgress(NamedTuple):
    """How far the reading is."""

    tokens: int
    total_tokens: int


class DocumentHasher:
    """Writes the hashes of documents whose tokens pass, under a temporary name until `publish`.

    Without it nothing is left behind. It holds no more than the hashes of the documents of one call.

    Args:
        path: the file to be, as `place_to_write` gives it; its folder is there.

    Raises:
        Refused: its manifest would replace that of something else.
    """

    def __init__(self, path: Path) -> None:
        self.documents = 0
        """Documents so far."""
        self._path = path
        _refuse_other_artefact(path)
        self._writer = HashingWriter(temporary_path(path))
        try:
            self._writer.write(HEADER.pack(MAGIC, VERSION))
        except BaseException:
            self._writer.discard()
            raise

    def add(self, tokens: NDArray[Any], lengths: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """Takes the next documents, whose tokens lie end to end.

        Args:
            tokens: ids of any integer type, [sum of lengths].
            lengths: tokens of each document.
        """
        self._writer.write(token_checksums(tokens, lengths).astype("<u8", copy=False).data)
        self.documents += len(lengths)

    def publish(self, dataset_id: str, command: str) -> Manifest:
        """Completes the file and writes its manifest; nothing can be added afterwards.

        Args:
            command: how it was made, as the manifest tells it.
        """
        self._writer.close()
        file = FileRecord(path=self._path.name, size=self._writer.size, sha256=self._writer.sha256)
        manifest = build_manifest(
            KIND, [file], {"documents": self.documents, "version": VERSION}, [dataset_id], command
        )
        # the manifest of another dataset goes first: a file without one counts as none, under that one it would go
        # unnoticed. One of this dataset stays: whoever reads or writes it at the same time has the same bytes
        if not _belongs_to(manifest_path(self._path), dataset_id):
            manifest_path(self._path).unlink(missing_ok=True)
        self._writer.path.replace(self._path)
        fsync_folder(self._path.parent)
        write_manifest(manifest_path(self._path), manifest)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.discard()  # of what was published the temporary name is gone already


def make_hashes(
    prefix: Path,
    dataset: IndexedDataset,
    dataset_id: str,
    on_progress: Callable[[HashingProgress], None] = lambda progress: None,
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Reads a dataset whole and writes the hashes of its documents, in place of those that may be there.

    Memory is that of 65,536 hashes, whatever the documents' lengths; a core does 75 to 300 million tokens a second.
    Processes that make or read those of one dataset at the same time do not disturb each other.

    Returns:
        The file of the hashes.

    Raises:
        TrainyardError: no place to write them, a full disk, tokens that are no integers, or a damaged index. What was
            there stays.
    """
    if dataset.dtype.kind not in "iu":
        raise TrainyardError(
            f"{printable(dataset.bin_path)} holds {dataset.dtype.name}, expected integer token ids: documents of other "
            "numbers have no hash. Make the dataset with tools/preprocess"
        )
    path = place_to_write(prefix, dataset_id, ENDING, environment)
    total, documents = len(dataset.tokens), dataset.number_of_documents
    with written_whole(path), DocumentHasher(path) as hasher:
        for first in range(0, documents, DOCUMENTS_AT_ONCE):
            last = min(first + DOCUMENTS_AT_ONCE, documents)
            begin, end = dataset.document_token_offset(first), dataset.document_token_offset(last)
            hasher.add(dataset.tokens[begin:end], dataset.document_lengths(first, last))
            on_progress(HashingProgress(end, total))
        hasher.publish(dataset_id, f"tools/dataset hash {prefix.name}")
    return path


def open_hashes(
    prefix: Path, dataset_id: str, documents: int, environment: Mapping[str, str] = os.environ
) -> NDArray[np.uint64] | None:
    """The hashes of a dataset's documents, mapped and read-only, uint64 [documents]; None where none were made.

    Those of another dataset of this name, such as the one that this one replaced, count as none. The file's size and
    header are checked; its bytes are compared with its manifest by `tools/inventory verify`.

    Raises:
        Damaged: the file or its manifest is not what was written.
        Refused: they are marked invalid, or of another version of the formula, or something else has their name.
    """
    for path in places(prefix, dataset_id, ENDING, environment):
        if not manifest_path(path).exists():
            continue
        _refuse_other_artefact(path)
        manifest = read_manifest(manifest_path(path))
        if manifest.parents == [dataset_id]:
            return _open(path, manifest, documents, f"run tools/dataset hash {printable(prefix)} to make it again")
    return None


def _belongs_to(manifest: Path, dataset_id: str) -> bool:
    try:
        return read_manifest(manifest).parents == [dataset_id]
    except TrainyardError:
        return False


def _refuse_other_artefact(path: Path) -> None:
    """Raises Refused if the manifest of hashes would be, or is, that of a dataset called `PREFIX.hashes`."""
    manifest = manifest_path(path)
    if not manifest.exists():
        return
    try:
        kind = read_manifest(manifest).kind
    except Damaged:
        return  # it is made again
    if kind != KIND:
        raise Refused(
            f"{printable(manifest)} belongs to a {kind}, and has the name that the document hashes of "
            f"{printable(path.name.removesuffix(f'.{ENDING}'))} need; rename one of the two"
        )


def _open(path: Path, manifest: Manifest, documents: int, remedy: str) -> NDArray[np.uint64]:
    shown = printable(path)
    # with an invalid dataset its hashes are marked too, and are what they were for whoever may read it all the same
    if manifest.status.state == "invalid" and manifest.status.cause == manifest.id:
        raise Refused(f"{shown} is marked invalid: {shortened(manifest.status.reason, 500)}; {remedy}")
    if (version := manifest.facts.get("version")) != VERSION:
        raise Refused(
            f"{shown} has hashes of version {shortened(version)}, this Trainyard makes version {VERSION}: other hashes "
            f"split differently. Use the Trainyard that made them, or {remedy}"
        )
    expected = HEADER.size + 8 * documents
    try:
        with open_plain(path) as file:
            header, content = file.read(HEADER.size), mapped(file)
    except FileNotFoundError:
        raise Damaged(f"{shown} is missing, and its manifest is there; {remedy}") from None
    except OSError as error:
        raise Refused(f"{shown} cannot be read ({error.strerror}); remove it, then {remedy}") from None
    if len(content) != expected:
        raise Damaged(
            f"{shown} has {len(content):,} bytes, expected {expected:,} for {documents:,} documents; {remedy}"
        )
    if header != HEADER.pack(MAGIC, VERSION):
        raise Damaged(f"{shown} does not start as hashes of version {VERSION} do; {remedy}")
    return content[HEADER.size :].view("<u8")
