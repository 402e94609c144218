import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.datasets import answers
from data_tools.datasets.answers import counts_of
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import idx_path
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.scan import scan
from megatron_patches.errors import Damaged

Records = list[list[list[int]]]
RECORDS: Records = [[[1, 2], [3]], [], [[], [4, 5], [6], [7]], [[8]], [[]], [[9], [], [10], [11, 12]], []]
ANSWERS = {3, 4, 5, 7, 11, 12}

records = st.lists(st.lists(st.lists(st.integers(0, 65535), max_size=5), max_size=6), max_size=12).filter(
    lambda each: any(sequence for document in each for sequence in document)
)


def write(prefix: Path, documents: Records, pieces: int = 1) -> IndexedDataset:
    """Writes documents in several calls, as chunks of a source come."""
    with IndexedDatasetWriter(prefix, "u2") as writer:
        for first in range(0, len(documents), pieces):
            chunk = documents[first : first + pieces]
            lengths = [len(sequence) for document in chunk for sequence in document]
            tokens = [token for document in chunk for sequence in document for token in sequence]
            writer.add_documents(np.array(tokens, dtype=np.int32), lengths, [len(document) for document in chunk])
    assert (writer.documents, writer.sequences) == (len(documents), sum(map(len, documents)))
    return IndexedDataset(prefix)


def plain_loop(documents: Records) -> list[bool]:
    """Of every token, whether it stands in an odd-numbered sequence."""
    return [number % 2 == 1 for document in documents for number, each in enumerate(document) for _ in each]


def test_answers_of_documents_of_all_shapes(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d", RECORDS, pieces=2)
    mask = dataset.answers(0, 12)
    assert mask.dtype == np.bool_
    assert set(dataset.tokens[mask].tolist()) == ANSWERS
    assert dataset.count_answers() == (5, 6)  # one of the answers is empty
    assert dataset.document_boundaries(2).tolist() == [3, 3, 5, 6, 7]
    assert dataset.document_boundaries(1).tolist() == [3]
    assert dataset.document_boundaries(6).tolist() == [12]
    assert dataset.document_lengths(0, 7).tolist() == [3, 0, 4, 1, 0, 4, 0]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=records, pieces=st.integers(1, 4), at_once=st.integers(1, 5), data=st.data())
def test_what_is_read_is_what_was_written(
    tmp_path: Path, documents: Records, pieces: int, at_once: int, data: st.DataObject
) -> None:
    dataset = write(tmp_path / "d", documents, pieces)
    expected = plain_loop(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "MOST_AT_ONCE", at_once)
        first = data.draw(st.integers(0, len(expected)))
        count = data.draw(st.integers(0, len(expected) - first))
        assert dataset.answers(first, count).tolist() == expected[first : first + count]
        assert dataset.answers(0, len(expected)).tolist() == expected
        counts = dataset.count_answers()
    odd = [len(each) for document in documents for number, each in enumerate(document) if number % 2]
    assert counts == (len(odd), sum(odd))
    lengths = np.array([len(each) for document in documents for each in document], dtype=np.int64)
    assert counts_of(lengths, np.array([len(document) for document in documents])) == counts
    assert dataset.number_of_documents == len(documents)
    for number, document in enumerate(documents):
        boundaries = dataset.document_boundaries(number).tolist()
        assert len(boundaries) == len(document) + 1
        read = [dataset.tokens[start:end].tolist() for start, end in pairwise(boundaries)]
        assert read == document
    assert scan(dataset).empty_documents == sum(not any(document) for document in documents)


def test_documents_of_one_sequence_have_the_bytes_they_had(tmp_path: Path) -> None:
    documents = [[[1, 2]], [[3]], [[]]]
    write(tmp_path / "records", documents)
    with IndexedDatasetWriter(tmp_path / "texts", "u2") as writer:
        writer.add_documents([1, 2, 3], [2, 1, 0])
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"records{suffix}").read_bytes() == (tmp_path / f"texts{suffix}").read_bytes()


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, 13), (12, 1), (3, -1)])
def test_tokens_that_are_not_there(tmp_path: Path, first: int, count: int) -> None:
    dataset = write(tmp_path / "d", RECORDS)
    with pytest.raises(IndexError):
        dataset.answers(first, count)


def test_memory_does_not_grow_with_the_index(tmp_path: Path) -> None:
    """Of 400,000 documents a few tokens are asked for; the index has 11 MB, numpy's own search would copy 6 of them."""
    with IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        writer.add_documents(np.ones(800_000, dtype=np.uint16), [1] * 800_000, [2] * 400_000)
    dataset = IndexedDataset(tmp_path / "d")
    tracemalloc.start()
    assert dataset.answers(500_001, 6).tolist() == [True, False] * 3
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_memory_does_not_grow_with_empty_documents(tmp_path: Path) -> None:
    """Between two tokens lie 400,000 of them, of which the index has 3 MB."""
    with IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        writer.add_documents([1, 2, 3, 4], [1] * 4, [2, *[0] * 400_000, 2])
    dataset = IndexedDataset(tmp_path / "d")
    tracemalloc.start()
    assert dataset.answers(0, 4).tolist() == [False, True, False, True]
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


# RECORDS as uint16: 13 sequences, header 34, lengths 34..86, pointers 86..190, document indices 190..254.
@pytest.mark.parametrize(
    "read", [lambda dataset: dataset.answers(0, 12), lambda dataset: [dataset.document_boundaries(k) for k in range(7)]]
)
def test_sequences_that_overlap(tmp_path: Path, read: Callable[[IndexedDataset], object]) -> None:
    dataset = write(tmp_path / "d", RECORDS)
    content = bytearray(idx_path(dataset.prefix).read_bytes())
    content[86 + 8 * 4 : 86 + 8 * 5] = (18).to_bytes(8, "little")  # the fifth sequence starts at token 9, not 5
    idx_path(dataset.prefix).write_bytes(content)
    with pytest.raises(Damaged, match=r"d\.idx"):
        read(dataset)
