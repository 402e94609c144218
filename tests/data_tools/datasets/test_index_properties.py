"""Any documents, written and read back: empty ones, those of several sequences, every type."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import DTYPES, HEADER, idx_path, shortened_files
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.scan import scan
from megatron_patches.errors import TrainyardError
from tests.data_tools.datasets.hand_written import Documents, contents, quick_folder, some_documents, write_sequences

CODES = st.sampled_from(sorted(DTYPES))


@st.composite
def typed_documents(draw: st.DrawFn) -> tuple[int, Documents]:
    """A code of a type, and documents with any numbers that it holds; at least one."""
    code = draw(CODES)
    dtype = DTYPES[code]
    if dtype.kind == "f":
        numbers: st.SearchStrategy[Any] = st.floats(width=8 * dtype.itemsize, allow_nan=False)  # type: ignore[arg-type]
    else:
        numbers = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    documents = draw(st.lists(st.lists(st.lists(numbers, max_size=5), max_size=4), max_size=8))
    return code, [*documents, [[draw(numbers)]]]


@settings(max_examples=40)
@given(given=typed_documents())
def test_every_type_and_every_document_is_read_as_it_was_written(given: tuple[int, Documents]) -> None:
    code, documents = given
    sequences = [sequence for document in documents for sequence in document]
    lengths = [sum(map(len, document)) for document in documents]
    with quick_folder() as place:
        dataset = IndexedDataset(write_sequences(place / "d", documents, code))
        assert dataset.dtype == DTYPES[code]
        assert [each.tolist() for each in dataset] == sequences
        assert dataset.tokens.tolist() == [token for sequence in sequences for token in sequence]
        assert dataset.number_of_documents == len(documents)
        assert dataset.document_lengths(0, len(documents)).tolist() == lengths
        assert [dataset.document_token_offset(each) for each in range(len(documents) + 1)] == np.cumsum(
            [0, *lengths]
        ).tolist()
        assert shortened_files(dataset.prefix) == []


@settings(max_examples=40)
@given(given=typed_documents())
def test_the_writer_and_the_description_of_the_format_agree(given: tuple[int, Documents]) -> None:
    code, documents = given
    documents = [[[token for sequence in document for token in sequence]] for document in documents]
    with quick_folder() as place:
        with IndexedDatasetWriter(place / "ours", DTYPES[code]) as writer:
            for (sequence,) in documents:
                writer.add_document(np.array(sequence, DTYPES[code]))
        assert contents(place / "ours") == contents(write_sequences(place / "by-hand", documents, code))


@settings(max_examples=50)
@given(documents=some_documents(), field=st.sampled_from((0, 9, 17, 18, 26)), data=st.data())
def test_a_header_that_states_something_else(documents: Documents, field: int, data: st.DataObject) -> None:
    """Magic, version, type, numbers of sequences and of document indices: none can change without an error, but for
    int16, which is as wide as uint16.
    """
    size = {0: 9, 9: 8, 17: 1, 18: 8, 26: 8}[field]
    with quick_folder() as place:
        prefix = write_sequences(place / "d", documents)
        before = idx_path(prefix).read_bytes()
        changed = data.draw(
            st.binary(min_size=size, max_size=size).filter(lambda each: each not in (before[field:][:size], b"\3"))
        )
        idx_path(prefix).write_bytes(before[:field] + changed + before[field + size :])
        with pytest.raises(TrainyardError) as caught:
            scan(IndexedDataset(prefix))
    assert "d.idx" in str(caught.value) or "d.bin" in str(caught.value)


@settings(max_examples=40)
@given(documents=some_documents(), sequences=st.integers(-3, 3), indices=st.integers(-3, 3))
def test_counts_that_fit_the_size_and_not_the_content(documents: Documents, sequences: int, indices: int) -> None:
    """2 sequences less and 3 documents more leave the size as it is: what they lead to is looked at all the same."""
    with quick_folder() as place:
        prefix = write_sequences(place / "d", documents)
        before = idx_path(prefix).read_bytes()
        head = list(HEADER.unpack(before[: HEADER.size]))
        if (sequences, indices) == (0, 0) or head[3] + 2 * sequences < 0 or head[4] - 3 * sequences < 0:
            return
        head[3] += 2 * sequences
        head[4] += indices - 3 * sequences
        if head[4] < 0:
            return
        idx_path(prefix).write_bytes(HEADER.pack(*head) + before[HEADER.size :])
        with pytest.raises(TrainyardError, match=r"d\.(idx|bin)"):
            scan(IndexedDataset(prefix))
