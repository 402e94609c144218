"""Documents of validation that training has too, counted and named."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.datasets.checksums import checksum, token_checksums
from data_tools.datasets.selection import DocumentRange
from data_tools.splits import overlap
from data_tools.splits.hash_range import HashRange
from data_tools.splits.overlap import Overlap, Place, SelectedHashes, overlapping_documents

Documents = Sequence[Sequence[int]]
SHARD = st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=9)
SHARDS = st.lists(SHARD, max_size=3)


def hashed(shards: Sequence[Documents]) -> list[SelectedHashes]:
    return [
        SelectedHashes(DocumentRange(0, len(shard)), np.array(list(map(checksum, shard)), dtype=np.uint64))
        for shard in shards
    ]


def one_by_one(training: Sequence[Documents], validation: Sequence[Documents]) -> Overlap:
    documents = [
        (tuple(each), Place(shard, at)) for shard, held in enumerate(validation) for at, each in enumerate(held)
    ]
    filled = [(tokens, place) for tokens, place in documents if tokens]
    trained_on = [
        (tuple(each), Place(shard, at)) for shard, held in enumerate(training) for at, each in enumerate(held)
    ]
    known = {tokens for tokens, _ in trained_on}
    examples = {}
    for tokens, place in trained_on:
        first = next((other for same, other in filled if same == tokens), None)
        if first is not None and tokens not in examples:
            examples[tokens] = (first, place)
    repeated = sum(tokens in known for tokens, _ in filled)
    return Overlap(len(filled), repeated, tuple(examples.values())[:5])


@given(SHARDS, SHARDS, st.integers(1, 10))
def test_what_is_found_is_what_a_look_at_each_document_finds(
    training: list[list[list[int]]], validation: list[list[list[int]]], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "BLOCK", block)
        assert overlapping_documents(hashed(training), hashed(validation)) == one_by_one(training, validation)


def test_documents_are_named_by_their_numbers_in_the_file() -> None:
    (_, hashes), (_, more) = hashed([[[1], [2], [], [3], [1]], [[7], [1]]])
    training = [SelectedHashes(DocumentRange(0, 2), hashes), SelectedHashes(DocumentRange(1, 2), more)]
    validation = [SelectedHashes(DocumentRange(2, 5), hashes)]
    found = overlapping_documents(iter(training), iter(validation))
    assert found == Overlap(2, 1, ((Place(0, 4), Place(0, 0)),))


def test_parts_by_hash_have_nothing_in_common() -> None:
    hashes = token_checksums(np.arange(500) % 100, np.full(500, 1))
    low, high = (HashRange(*bounds, hashes) for bounds in ((0, 1 << 63), (1 << 63, 1 << 64)))
    found = overlapping_documents([SelectedHashes(low, hashes)], [SelectedHashes(high, hashes)])
    assert found == Overlap(sum(map(len, high.blocks(100))), 0, ())
    assert 0 < found.documents < 500


@pytest.mark.parametrize("shards", [[], [[]], [[[], []]]])
def test_nothing_is_repeated_where_there_is_nothing(shards: list[list[list[int]]]) -> None:
    some = [[[1], [2]]]
    assert overlapping_documents(hashed(shards), hashed(some)) == Overlap(2, 0, ())
    assert overlapping_documents(hashed(some), hashed(shards)) == Overlap(0, 0, ())
