from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.datasets import lengths as module
from data_tools.datasets.indexed_dataset_format import idx_path
from data_tools.datasets.lengths import LengthHistogram, read_histogram
from megatron_patches.errors import Damaged
from tests.data_tools.datasets.hand_written import quick_folder, some_documents, write_sequences

LENGTHS = st.lists(st.one_of(st.integers(0, 20), st.integers(0, 2**40)), min_size=1, max_size=60)


def histogram_of(lengths: list[int]) -> LengthHistogram:
    return LengthHistogram(*np.unique(np.array(lengths, np.int64), return_counts=True))


@settings(max_examples=25)
@given(documents=some_documents(), block=st.integers(1, 13))
def test_read_in_blocks_of_any_size(documents: list[list[list[int]]], block: int) -> None:
    with quick_folder() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DOCUMENTS_READ_AT_ONCE", block)
        found = read_histogram(write_sequences(place / "d", documents))
    expected = [sum(map(len, document)) for document in documents]
    assert np.repeat(found.lengths, found.documents).tolist() == sorted(expected)
    assert (found.number_of_documents, found.tokens) == (len(documents), sum(expected))


@given(lengths=LENGTHS, share=st.floats(0, 1), limit=st.integers(0, 30))
def test_quantiles_and_tails_are_exact(lengths: list[int], share: float, limit: int) -> None:
    found = histogram_of(lengths)
    assert found.quantile(share) == int(np.quantile(lengths, share, method="inverted_cdf"))
    longer = [length for length in lengths if length > limit]
    assert found.longer_than(limit) == (len(longer), sum(longer))


@given(lengths=LENGTHS, most=st.integers(1, 70))
def test_bins_hold_every_document_once(lengths: list[int], most: int) -> None:
    bins = histogram_of(lengths).bins(most)
    for each in bins:
        inside = [length for length in lengths if each.first <= length < each.end]
        assert (each.documents, each.tokens) == (len(inside), sum(inside))
    assert sum(each.documents for each in bins) == len(lengths)
    assert bins[0].documents and bins[-1].documents
    filled = [each for each in bins if each.first]
    assert all(one.end == other.first for one, other in pairwise(filled))
    needed = (
        int(max(lengths)).bit_length() - min(length for length in lengths if length).bit_length() + 1 if filled else 0
    )
    assert len(filled) <= max(most, needed)


def test_bins_are_as_fine_as_there_is_room() -> None:
    found = histogram_of([0, 16, 17, 31])
    assert [(each.first, each.end) for each in found.bins(4)] == [(0, 1), (16, 20), (20, 23), (23, 27), (27, 32)]
    assert [(each.first, each.end) for each in found.bins(1)] == [(0, 1), (16, 32)]
    assert [tuple(each) for each in histogram_of([0, 0]).bins(4)] == [(0, 1, 2, 0)]


def test_an_index_that_runs_backwards(tmp_path: Path) -> None:
    prefix = write_sequences(tmp_path / "d", [[[1]], [[2]], [[3]]])
    content = bytearray(idx_path(prefix).read_bytes())
    content[-24:-16] = (3).to_bytes(8, "little")
    idx_path(prefix).write_bytes(bytes(content))
    with pytest.raises(Damaged, match="document 1 starts at sequence 3 and the next one at 2"):
        read_histogram(prefix)
