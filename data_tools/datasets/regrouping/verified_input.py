"""A dataset that another one is made from: opened, and held to its manifest before its bytes are passed on."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.regrouping.stretches import Stretch, stretch_of
from megatron_patches.artefacts.manifest import FileRecord, Manifest, refuse_invalid
from megatron_patches.atomic_files import hash_file
from megatron_patches.errors import Damaged, TrainyardError

_REMEDY = "Copy it again, or run tools/preprocess again"


@dataclass(frozen=True)
class VerifiedInput:
    """A dataset whose index is what the manifest says; its tokens are compared once they have passed `digest`."""

    prefix: Path
    id: str
    facts: DatasetFacts
    whole: Stretch
    """All its documents."""
    tokens_sha256: str
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    """Takes the bytes of the `.bin` in their order."""

    def check_tokens(self) -> None:
        """Raises Damaged unless the bytes that were read are those of the manifest."""
        if (found := self.digest.hexdigest()) != self.tokens_sha256:
            raise Damaged(
                f"{self.prefix}.bin has sha256 {found}, its manifest says {self.tokens_sha256}. {_REMEDY}; nothing was "
                "written"
            )


def open_input(prefix: Path) -> VerifiedInput:
    """Opens a dataset and compares its index, its sizes and its counts with its manifest.

    Raises:
        TrainyardError: it is missing or damaged, has no manifest, is marked invalid, or holds no token ids.
    """
    dataset = IndexedDataset(prefix)
    manifest, facts = read_dataset_manifest(prefix, allow_invalid=True)
    refuse_invalid(manifest, manifest_path(prefix), "make it again without what is wrong with it")
    if dataset.dtype.kind not in "iu":
        raise TrainyardError(f"{dataset.bin_path} holds {dataset.dtype.name}, expected integer token ids")
    tokens, index = _record(manifest, dataset.bin_path), _record(manifest, dataset.idx_path)
    found, _ = hash_file(dataset.idx_path)
    if found != index.sha256:
        raise Damaged(f"{dataset.idx_path} has sha256 {found}, its manifest says {index.sha256}. {_REMEDY}")
    counts = {
        "documents": (facts.documents, dataset.number_of_documents),
        "sequences": (facts.sequences, len(dataset)),
        "tokens": (facts.tokens, len(dataset.tokens)),
        "dtype": (facts.dtype, dataset.dtype.name),
    }
    for name, (stated, actual) in counts.items():
        if stated != actual:
            raise Damaged(f"dataset {prefix}: {name}: {actual} found, the manifest says {stated}. {_REMEDY}")
    whole = stretch_of(dataset, 0, dataset.number_of_documents)
    return VerifiedInput(prefix, manifest.id, facts, whole, tokens.sha256)


def _record(manifest: Manifest, path: Path) -> FileRecord:
    record = next((each for each in manifest.files if each.path == path.name), None)
    if record is None:
        raise Damaged(
            f"the manifest of {path} names other files ({', '.join(each.path for each in manifest.files[:4])}): give "
            "the files back the names that they were made with"
        )
    if (size := path.stat().st_size) != record.size:
        raise Damaged(f"{path} has {size:,} bytes, its manifest says {record.size:,}. {_REMEDY}")
    return record
