import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.datasets import indexed_dataset_writer
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import DTYPES, HEADER, MAGIC, bin_path, idx_path, shortened_files
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.scan import scan
from data_tools.text.document_encoding import ids_type
from megatron_patches.atomic_files import hash_file
from megatron_patches.errors import Damaged, TrainyardError

MakeDataset = Callable[..., Path]
DOCUMENTS = [[1, 2, 3], [], [4], [5, 6], []]


def write_by_hand(
    prefix: Path, tokens: np.ndarray, lengths: list[int], document_indices: list[int], code: int = 8
) -> None:
    """An index spelled out, for what the writer never makes."""
    starts = np.cumsum([0, *lengths])[:-1] * tokens.itemsize
    index = HEADER.pack(MAGIC, 1, code, len(lengths), len(document_indices))
    index += np.array(lengths, "<i4").tobytes() + starts.astype("<i8").tobytes()
    index += np.array(document_indices, "<i8").tobytes()
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    prefix.with_name(prefix.name + ".bin").write_bytes(tokens.tobytes())


def test_what_is_read_is_what_was_written(make_dataset: MakeDataset) -> None:
    dataset = IndexedDataset(make_dataset(DOCUMENTS))
    assert [dataset[sequence].tolist() for sequence in range(len(dataset))] == DOCUMENTS
    assert [sequence.tolist() for sequence in dataset] == DOCUMENTS
    assert dataset.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert (dataset.sequence_lengths.tolist(), dataset.sequence_lengths.dtype) == ([3, 0, 1, 2, 0], np.int32)
    assert (dataset.sequence_pointers.tolist(), dataset.sequence_pointers.dtype) == ([0, 6, 6, 8, 12], np.int64)
    assert dataset.document_indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert [dataset.document_token_offset(document) for document in range(6)] == [0, 3, 3, 4, 6, 6]
    assert dataset.document_lengths(0, 5).tolist() == [3, 0, 1, 2, 0]
    assert dataset.document_lengths(1, 4).tolist() == [0, 1, 2]


def test_the_layout_of_the_index_byte_for_byte(make_dataset: MakeDataset) -> None:
    prefix = make_dataset([[1, 2], [3]])
    expected = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 2, 3) + struct.pack("<2i2q3q", 2, 1, 0, 4, 0, 1, 2)
    assert prefix.with_name("made.idx").read_bytes() == expected
    assert prefix.with_name("made.bin").read_bytes() == struct.pack("<3H", 1, 2, 3)


def test_documents_of_several_sequences(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "d", np.arange(6, dtype="<u2"), [1, 2, 3], [0, 2, 2, 3, 3])
    dataset = IndexedDataset(tmp_path / "d")
    assert (dataset.number_of_documents, len(dataset)) == (4, 3)
    assert [dataset.document_token_offset(document) for document in range(5)] == [0, 3, 3, 6, 6]
    assert dataset.document_lengths(0, 4).tolist() == [3, 0, 3, 0]
    for document in (-1, 5):
        with pytest.raises(IndexError):
            dataset.document_token_offset(document)


def test_an_index_written_in_several_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(0).integers(0, 9, 100).tolist()
    tokens = np.arange(sum(lengths))
    for name, chunk in (("one", 1 << 20), ("many", 7)):
        monkeypatch.setattr(indexed_dataset_writer, "NUMBERS_AT_ONCE", chunk)
        with IndexedDatasetWriter(tmp_path / name, "i4") as writer:
            writer.add_documents(tokens, lengths)
    for suffix in (".idx", ".bin"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"many{suffix}").read_bytes()
    assert IndexedDataset(tmp_path / "many").sequence_pointers.tolist() == (np.cumsum([0, *lengths])[:-1] * 4).tolist()


def test_the_writer_counts_and_hashes(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        assert writer.largest_token is None
        for document in DOCUMENTS:
            writer.add_document(document)
    assert (writer.documents, writer.tokens, writer.largest_token) == (5, 6, 6)
    for file, suffix in zip(writer.files, (".bin", ".idx"), strict=True):
        assert (file.sha256, file.size) == hash_file(tmp_path / f"d{suffix}")


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65499, "uint16"), (65500, "int32")])
def test_dtype_of_a_vocabulary(vocab_size: int, dtype: str) -> None:
    assert ids_type(vocab_size).name == dtype


@pytest.mark.parametrize(("dtype", "token"), [("u2", 65536), ("u1", 256), ("i1", 128), ("u2", -1), ("i4", 2**31)])
def test_a_token_beyond_the_dtype(tmp_path: Path, dtype: str, token: int) -> None:
    with pytest.raises(TrainyardError, match="wider dtype"), IndexedDatasetWriter(tmp_path / "d", dtype) as writer:
        writer.add_document([1, token])
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_without_a_code(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match="cannot hold uint32"):
        IndexedDatasetWriter(tmp_path / "d", "u4")
    assert list(tmp_path.iterdir()) == []


def test_a_crash_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        writer.add_document([1, 2])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_full_disk_at_the_end_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    calls = iter(range(1, 9))

    def fsync(descriptor: int) -> None:
        if next(calls) == failing_call:
            raise OSError("no space left")

    monkeypatch.setattr("megatron_patches.atomic_files.os.fsync", fsync)
    with pytest.raises(OSError, match="no space"), IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        writer.add_document([1, 2])
    assert list(tmp_path.iterdir()) == []


def test_an_old_dataset_stays_until_the_new_one_is_whole(make_dataset: MakeDataset) -> None:
    prefix = make_dataset([[1, 2]])
    with IndexedDatasetWriter(prefix, "u2") as writer:
        writer.add_document([3])
        writer.finish()
        assert IndexedDataset(prefix).tokens.tolist() == [1, 2]
    assert IndexedDataset(prefix).tokens.tolist() == [3]


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _put(offset: int, layout: str, value: int) -> Callable[[bytes], bytes]:
    replacement = struct.pack(layout, value)
    return lambda content: content[:offset] + replacement + content[offset + len(replacement) :]


# DOCUMENTS as uint16: header 34, lengths 34..54, pointers 54..94, document indices 94..142.
@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        (
            ".bin",
            lambda content: content[:-2],
            r"made.bin is truncated: 10 bytes found, 12 expected .*tools/preprocess",
        ),
        (".bin", lambda content: content[:-1], r"made.bin is truncated: 11 bytes found"),
        (".bin", lambda content: content + b"xx", r"made.bin is longer than its index says: 14 bytes found"),
        (".bin", lambda content: b"", r"made.bin is empty"),
        (".idx", lambda content: b"", r"made.idx is empty"),
        (".idx", lambda content: content[:-8], r"made.idx has 134 bytes, expected 142 .*5 sequences, 6 document"),
        (".idx", lambda content: content + b"\0" * 5, r"made.idx has 147 bytes, expected 142"),
        (".idx", lambda content: content[:20], r"made.idx has 20 bytes, expected a header of 34"),
        (".idx", lambda content: b"TNTIDX" + content[6:], r"starts with b'TNTIDX.*not a Megatron index"),
        (".idx", _put(9, "<Q", 2), r"version 2, expected 1"),
        (".idx", _put(17, "<B", 9), r"dtype code 9, expected one of 1 \(uint8\)"),
        (".idx", _put(17, "<B", 4), r"sequence 0 ends at byte 12, the next one starts at byte 6"),
        (".idx", _put(18, "<Q", 2**40), r"made.idx has 142 bytes, expected [\d,]{10}"),
        (".idx", _put(54, "<q", 2), r"sequence 0 ends at byte 8, the next one starts at byte 6"),
        (".idx", _put(70, "<q", 10), r"sequence 1 ends at byte 6, the next one starts at byte 10"),
        (".idx", _put(94, "<q", 1), r"document index runs from 1 to 5, expected 0 to 5"),
        (".idx", _put(134, "<q", 4), r"document index runs from 0 to 4, expected 0 to 5"),
    ],
)
def test_damaged_files(make_dataset: MakeDataset, suffix: str, change: Callable[[bytes], bytes], message: str) -> None:
    prefix = make_dataset(DOCUMENTS)
    _change(prefix.with_name(prefix.name + suffix), change)
    with pytest.raises(TrainyardError, match=message):
        IndexedDataset(prefix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put(102, "<q", -1), "document 1 starts at sequence -1 of 5"),
        (_put(102, "<q", -(2**63)), "document 1 starts at sequence -9223372036854775808 of 5"),
        (_put(102, "<q", 2**62), "document 1 starts at sequence 4611686018427387904 of 5"),
    ],
)
def test_a_document_index_that_leads_out_of_the_dataset(
    make_dataset: MakeDataset, change: Callable[[bytes], bytes], message: str
) -> None:
    prefix = make_dataset(DOCUMENTS)
    _change(idx_path(prefix), change)
    dataset = IndexedDataset(prefix)
    reads: list[Callable[[], object]] = [
        lambda: dataset.document_token_offset(1),
        lambda: dataset.document_lengths(0, 5),
        lambda: scan(dataset),
    ]
    for read in reads:
        with pytest.raises(Damaged, match=message):
            read()


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (50, "<i", -1, "the last sequence has -1 tokens"),
        (86, "<q", 7, "no multiple of the 2 bytes"),
        (70, "<q", -(2**63), "sequence 1 ends at byte 6, the next one starts at byte -9223372036854775808"),
        (18, "<Q", 2**64 - 1, "expected [0-9,]+ from its own counts"),
        (26, "<Q", 2**64 - 1, "expected [0-9,]+ from its own counts"),
    ],
)
def test_lengths_pointers_and_counts_that_cannot_be(
    make_dataset: MakeDataset, offset: int, layout: str, value: int, message: str
) -> None:
    prefix = make_dataset(DOCUMENTS)
    _change(idx_path(prefix), _put(offset, layout, value))
    with pytest.raises(Damaged, match=message):
        IndexedDataset(prefix)


def test_files_that_were_shortened_are_named(make_dataset: MakeDataset, tmp_path: Path) -> None:
    prefix = make_dataset(DOCUMENTS)
    assert shortened_files(prefix) == []
    os.truncate(bin_path(prefix), 4)
    (told,) = shortened_files(prefix)
    assert told.startswith(f"{bin_path(prefix)} was shortened: it has 4 of the 12 bytes")
    os.truncate(idx_path(prefix), 60)
    (told,) = shortened_files(prefix)
    assert told.startswith(f"{idx_path(prefix)} was shortened: it has 60 of the 142 bytes")
    os.truncate(idx_path(prefix), 5)
    assert "expected" in shortened_files(prefix)[0]
    assert "cannot be read" in shortened_files(tmp_path / "none")[0]


def test_one_sequence_that_starts_late(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "d", np.arange(3, dtype="<u2"), [2], [0, 1])
    _change(tmp_path / "d.idx", _put(38, "<q", 2))
    with pytest.raises(TrainyardError, match="first sequence starts at byte 2, expected 0"):
        IndexedDataset(tmp_path / "d")


def test_an_index_without_sequences(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "d", np.arange(1, dtype="<u2"), [], [0])
    with pytest.raises(TrainyardError, match="holds no sequences"):
        IndexedDataset(tmp_path / "d")


@pytest.mark.parametrize("missing", [".bin", ".idx"])
def test_half_a_dataset(make_dataset: MakeDataset, missing: str) -> None:
    prefix = make_dataset(DOCUMENTS)
    prefix.with_name(prefix.name + missing).unlink()
    with pytest.raises(TrainyardError, match=rf"made{missing} does not exist, though made.* does\. .*preprocess"):
        IndexedDataset(prefix)


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"nor does none.idx.*--output .*/none"):
        IndexedDataset(tmp_path / "none")


def test_all_codes_are_told_apart() -> None:
    assert sorted(DTYPES) == list(range(1, 9))
    assert len(set(DTYPES.values())) == 8
