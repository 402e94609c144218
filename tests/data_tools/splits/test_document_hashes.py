"""Hashes on disk: made, found, replaced, and refused where they are not what was written."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_tools.datasets import derived
from data_tools.datasets.checksums import checksum
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.splits import document_hashes
from data_tools.splits.document_hashes import HEADER, DocumentHasher, HashingProgress, make_hashes, open_hashes
from megatron_patches import atomic_files
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.invalidation import invalidate
from megatron_patches.artefacts.inventory.verification import verify_artefact
from megatron_patches.artefacts.manifest import (
    build_manifest,
    read_manifest,
    verify_files,
    write_manifest,
)
from megatron_patches.errors import Damaged, Refused, TrainyardError

ID = "a" * 64
DOCUMENTS: list[list[int]] = [[1, 2, 3], [], [4], [1, 2, 3], []]
MakeDataset = Callable[[Sequence[Sequence[int]], str], Path]


@pytest.fixture
def prefix(make_dataset: MakeDataset) -> Path:
    return make_dataset(DOCUMENTS, "u2")


def make(prefix: Path, dataset_id: str = ID) -> Path:
    return make_hashes(prefix, IndexedDataset(prefix), dataset_id, environment={})


def opened(prefix: Path, dataset_id: str = ID, documents: int = len(DOCUMENTS)) -> list[int] | None:
    hashes = open_hashes(prefix, dataset_id, documents, {})
    return None if hashes is None else hashes.tolist()


def test_there_are_none_until_they_are_made(prefix: Path) -> None:
    assert opened(prefix) is None
    path = make(prefix)
    assert path == prefix.with_name("made.hashes")
    assert opened(prefix) == list(map(checksum, DOCUMENTS))
    hashes = open_hashes(prefix, ID, len(DOCUMENTS), {})
    assert hashes is not None and hashes.dtype == np.uint64 and not hashes.flags.writeable
    manifest = read_manifest(manifest_path(path))
    assert (manifest.kind, manifest.parents) == ("document-hashes", [ID])
    assert manifest.facts == {"documents": 5, "version": 1}
    assert verify_files(manifest, path.parent, hashes=True) == []


def test_the_file_never_changes(prefix: Path) -> None:
    content = make(prefix).read_bytes()
    of_1_2_3 = "535ac5635105dbf3"
    assert content[:24].hex() == "5459484153484553" + "0100000000000000" + of_1_2_3
    assert len(content) == 16 + 5 * 8


def test_it_is_read_in_blocks_of_documents(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_hashes, "DOCUMENTS_AT_ONCE", 2)
    seen: list[HashingProgress] = []
    make_hashes(prefix, IndexedDataset(prefix), ID, seen.append, {})
    assert seen == [(3, 7), (7, 7), (7, 7)]
    assert opened(prefix) == list(map(checksum, DOCUMENTS))


def test_documents_of_several_sequences_are_hashed_whole(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        writer.add_documents(np.arange(6), [1, 2, 3])
    index = bytearray((tmp_path / "d.idx").read_bytes())
    index[9 + 8 + 1 + 8 : 9 + 8 + 1 + 16] = (3).to_bytes(8, "little")  # of four document indices, without the second
    del index[-24:-16]
    (tmp_path / "d.idx").write_bytes(index)
    make(tmp_path / "d")
    assert opened(tmp_path / "d", documents=2) == [checksum([0, 1, 2]), checksum([3, 4, 5])]


def test_hashes_of_passing_tokens_are_those_of_the_dataset(prefix: Path, tmp_path: Path) -> None:
    expected = make(prefix).read_bytes()
    with DocumentHasher(tmp_path / "other.hashes") as hasher:
        hasher.add(np.array([1, 2, 3]), [3, 0])
        hasher.add(np.array([], dtype=np.int32), [])
        hasher.add(np.array([4, 1, 2, 3], dtype=np.uint64), [1, 3, 0])
        hasher.publish(ID, "a test")
    assert (tmp_path / "other.hashes").read_bytes() == expected
    assert opened(tmp_path / "other") == list(map(checksum, DOCUMENTS))


def test_no_documents(tmp_path: Path) -> None:
    with DocumentHasher(tmp_path / "none.hashes") as hasher:
        hasher.publish(ID, "a test")
    assert opened(tmp_path / "none", documents=0) == []


def test_what_is_not_published_leaves_nothing(prefix: Path) -> None:
    before = set(prefix.parent.iterdir())
    with DocumentHasher(prefix.with_name("made.hashes")) as hasher:
        hasher.add(np.arange(3), [3])
    with pytest.raises(KeyboardInterrupt), DocumentHasher(prefix.with_name("made.hashes")):
        raise KeyboardInterrupt
    assert set(prefix.parent.iterdir()) == before


@pytest.mark.parametrize("fails", ["write", "fsync_folder"])
def test_a_full_disk_leaves_none_or_the_old_ones(prefix: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    make(prefix)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if fails == "write":
            patch.setattr(atomic_files.HashingWriter, "write", fail)
        else:
            patch.setattr(document_hashes, "fsync_folder", fail)
        with pytest.raises(TrainyardError, match=r"cannot be written \(No space left on device\); nothing is left"):
            make(prefix)
    assert opened(prefix) in ([*map(checksum, DOCUMENTS)], None)
    assert not [path for path in prefix.parent.iterdir() if path.name.endswith(".partial")]
    make(prefix)
    assert opened(prefix) == list(map(checksum, DOCUMENTS))


def test_what_is_cut_between_the_files_is_never_taken_for_an_earlier_dataset(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(prefix, "b" * 64)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document_hashes, "write_manifest", fail)
    with pytest.raises(TrainyardError, match=r"cannot be written \(No space left on device\); nothing is left"):
        make(prefix)
    assert opened(prefix) is None and opened(prefix, "b" * 64) is None


def test_those_of_an_earlier_dataset_of_this_name_count_as_none(prefix: Path) -> None:
    make(prefix, "b" * 64)
    assert opened(prefix) is None
    make(prefix)
    assert opened(prefix) == list(map(checksum, DOCUMENTS))


def test_a_file_without_a_manifest_counts_as_none(prefix: Path) -> None:
    manifest_path(make(prefix)).unlink()
    assert opened(prefix) is None


def test_beside_a_read_only_dataset_they_lie_elsewhere(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(TrainyardError, match=r"read-only.*export TRAINYARD_PLANS"):
        make(prefix)
    environment = {"TRAINYARD_PLANS": str(tmp_path / "plans")}
    path = make_hashes(prefix, IndexedDataset(prefix), ID, environment=environment)
    assert path == tmp_path / "plans" / ID[:16] / "made.hashes"
    hashes = open_hashes(prefix, ID, len(DOCUMENTS), environment)
    assert hashes is not None and hashes.tolist() == list(map(checksum, DOCUMENTS))
    assert opened(prefix) is None


def damage(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "kind", "said"),
    [
        (lambda path: damage(path, path.read_bytes()[:-1]), Damaged, "has 55 bytes, expected 56 for 5 documents"),
        (lambda path: damage(path, path.read_bytes() + b"x"), Damaged, "has 57 bytes"),
        (lambda path: damage(path, b"X" + path.read_bytes()[1:]), Damaged, "does not start as hashes of version 1"),
        (lambda path: damage(path, b""), Damaged, "has 0 bytes"),
        (lambda path: path.unlink(), Damaged, "is missing, and its manifest is there"),
        (lambda path: (path.unlink(), path.mkdir()), Refused, "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_and_made_again(
    prefix: Path, harm: Callable[[Path], object], kind: type[Exception], said: str
) -> None:
    path = make(prefix)
    harm(path)
    with pytest.raises(kind, match=f"{said}.*run tools/dataset hash .*made to make it again"):
        opened(prefix)
    if path.is_dir():
        path.rmdir()
    make(prefix)
    assert opened(prefix) == list(map(checksum, DOCUMENTS))


def test_a_damaged_manifest_is_refused_and_made_again(prefix: Path) -> None:
    manifest = manifest_path(make(prefix))
    manifest.write_text(manifest.read_text().replace('"documents": 5', '"documents": 6'))
    with pytest.raises(Damaged, match="was changed after it was written"):
        opened(prefix)
    make(prefix)
    assert opened(prefix) == list(map(checksum, DOCUMENTS))


def test_hashes_of_another_version_are_refused(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(document_hashes, "VERSION", 2)
        make(prefix)
    with pytest.raises(Refused, match=r"version 2, this Trainyard makes version 1.*tools/dataset hash"):
        opened(prefix)
    make(prefix)
    assert opened(prefix) == list(map(checksum, DOCUMENTS))


def test_the_manifest_of_a_dataset_with_their_name_is_not_replaced(prefix: Path) -> None:
    manifest = prefix.with_name("made.hashes.manifest.json")
    write_manifest(manifest, build_manifest("dataset", [], {}, command="a test"))
    before = manifest.read_bytes()
    for ask in (make, opened):
        with pytest.raises(Refused, match=r"belongs to a dataset, .*document hashes of made need; rename one"):
            ask(prefix)
    assert manifest.read_bytes() == before and not prefix.with_name("made.hashes").exists()


def test_numbers_that_are_no_token_ids_have_no_hash(make_dataset: MakeDataset) -> None:
    prefix = make_dataset([[1, 2]], "f4")
    with pytest.raises(TrainyardError, match="holds float32, expected integer token ids"):
        make(prefix)


def test_no_damage_of_the_header_passes(prefix: Path) -> None:
    path = make(prefix)
    whole = path.read_bytes()
    for place in range(HEADER.size):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(Damaged, match="does not start as"):
            opened(prefix)


def test_the_catalogue_lists_them_beneath_their_dataset(text_dataset: Path, tmp_path: Path) -> None:
    manifest, facts = read_dataset_manifest(text_dataset)
    path = make(text_dataset, manifest.id)
    with open_catalogue(tmp_path / "runs", text_dataset.parent, thorough=True) as catalogue:
        found = {each.name: each for each in catalogue.artefacts("kind IN ('dataset', 'document-hashes')")}
        assert {name: each.kind for name, each in found.items()} == {
            "texts": "dataset", "texts.hashes": "document-hashes",
        }  # fmt: skip
        hashes = found["texts.hashes"]
        assert (hashes.parents, hashes.size) == ((manifest.id,), 16 + 8 * facts.documents)
        assert verify_artefact(catalogue, hashes).problems == []
        invalidate(catalogue, found["texts"], "a test")
    assert opened(text_dataset, manifest.id, facts.documents) is not None
    with open_catalogue(tmp_path / "runs", text_dataset.parent, thorough=True) as catalogue:
        assert "came from texts" in " ".join(verify_artefact(catalogue, hashes).problems)
    make(text_dataset, manifest.id)
    with open_catalogue(tmp_path / "runs", text_dataset.parent, thorough=True) as catalogue:
        (alone,) = catalogue.artefacts("kind = 'document-hashes'")
        invalidate(catalogue, alone, "they are wrong")
    with pytest.raises(Refused, match=r"is marked invalid: they are wrong; run tools/dataset hash"):
        opened(text_dataset, manifest.id, facts.documents)
    assert path.exists()


def test_whoever_reads_while_they_are_made_again_is_not_disturbed(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another launch, or `tools/dataset hash`, makes those of the same dataset."""
    make(prefix)
    seen = []

    def look(folder: Path) -> None:
        seen.append(opened(prefix))

    monkeypatch.setattr(document_hashes, "fsync_folder", look)
    make(prefix)
    assert seen == [list(map(checksum, DOCUMENTS))]


def test_a_folder_for_them_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(derived.os, "access", lambda path, mode: False)
    with pytest.raises(TrainyardError, match=r"cannot be made \(Not a directory\); let TRAINYARD_PLANS name a folder"):
        derived.place_to_write(tmp_path / "data", ID, "hashes", {derived.FOLDER: str(tmp_path / "file")})
