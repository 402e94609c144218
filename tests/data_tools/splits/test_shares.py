"""Every document is in one part, whatever the shares, and identical ones in the same."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_tools.datasets.checksums import token_checksums
from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.datasets.split import SPLITS, split_documents
from data_tools.splits.hash_range import HashRange
from data_tools.splits.shares import Part, Shares, SplitBy, hash_bounds, parse_range, select
from megatron_patches.errors import TrainyardError

WHOLE = (0.0, 1.0)
PARTS: list[Part] = ["training", "validation", "test"]
SHARES = st.lists(st.one_of(st.integers(0, 10**6), st.floats(0, 10)), min_size=1, max_size=3)
SPLIT = SHARES.filter(lambda shares: sum(shares) > 0).map(lambda shares: ",".join(map(str, shares)))
SHARDS = st.lists(st.integers(0, 60), min_size=1, max_size=5)
CUTS = st.lists(st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda twentieth: twentieth / 20)), max_size=4)
ORDERS: list[SplitBy] = ["file_order", "document_hash"]


def documents_of(selections: Sequence[Selection]) -> list[tuple[int, int]]:
    return [
        (shard, document)
        for shard, selection in enumerate(selections)
        for block in selection.blocks(7)
        for document in block.tolist()
    ]


def test_parts_are_those_of_the_shares() -> None:
    assert tuple(PARTS) == SPLITS


@pytest.mark.parametrize("by", ORDERS)
@settings(max_examples=50)
@given(SPLIT, CUTS, SHARDS, st.integers(0, 2**32))
def test_each_document_is_in_one_part_of_one_of_the_ranges_that_meet(
    by: SplitBy, split: str, cuts: list[float], shards: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    hashes = [random.integers(0, 2**64, size=size, dtype=np.uint64, endpoint=False) for size in shards]
    edges = sorted({0.0, *cuts, 1.0})
    found = [
        document
        for start, end in pairwise(edges)
        for part in PARTS
        for document in documents_of(select(part, split, (start, end), by, shards, hashes.__getitem__))
    ]
    assert sorted(found) == [(shard, document) for shard, size in enumerate(shards) for document in range(size)]


@given(SPLIT, CUTS)
def test_bounds_of_hashes_leave_no_gap(split: str, cuts: list[float]) -> None:
    edges = sorted({0.0, *cuts, 1.0})
    bounds = [hash_bounds(part, split, range_) for range_ in pairwise(edges) for part in PARTS]
    assert bounds[0][0] == 0 and bounds[-1][1] == 1 << 64
    assert all(low <= high for low, high in bounds)
    assert all(before[1] == after[0] for before, after in pairwise(bounds))


def test_the_ends_of_hashes_belong_to_somebody() -> None:
    hashes = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64)
    low, high = (HashRange(*hash_bounds(part, "1,1", WHOLE), hashes) for part in ("training", "validation"))
    assert documents_of([low]) == [(0, 0), (0, 1), (0, 2)]
    assert documents_of([high]) == [(0, 3), (0, 4)]
    assert documents_of([HashRange(5, 5, hashes)]) == documents_of([HashRange(0, 0, hashes)]) == []


@given(SPLIT, st.integers(0, 10**12))
def test_the_whole_of_one_dataset_is_cut_as_megatron_cuts_it(split: str, documents: int) -> None:
    ranges = [select(part, split, WHOLE, "file_order", [documents])[0] for part in PARTS]
    expected = [DocumentRange(*each) for each in split_documents(split, documents)]
    assert [each if each.first < each.end else None for each in ranges if isinstance(each, DocumentRange)] == [
        each if each.first < each.end else None for each in expected
    ]


@pytest.mark.parametrize(
    ("part", "split", "range_", "shards", "expected"),
    [
        ("training", "949,50,1", WHOLE, [1000], [(0, 949)]),
        ("validation", "949,50,1", WHOLE, [1000], [(949, 999)]),
        ("training", "9,1", WHOLE, [6, 4], [(0, 6), (0, 3)]),
        ("validation", "9,1", WHOLE, [6, 4], [(0, 0), (3, 4)]),
        ("validation", "1,2,1", WHOLE, [3, 0, 2, 3], [(2, 3), (0, 0), (0, 2), (0, 1)]),
        ("training", "1", (0.0, 0.95), [10, 10], [(0, 10), (0, 9)]),
        ("training", "1", (0.95, 1.0), [10, 10], [(0, 0), (9, 10)]),
        ("validation", "1,1", (0.5, 1.0), [10, 10], [(0, 0), (5, 10)]),
        ("test", "1", WHOLE, [5], [(0, 0)]),
    ],
)
def test_file_order(part: Part, split: str, range_: Shares, shards: list[int], expected: list[tuple[int, int]]) -> None:
    assert select(part, split, range_, "file_order", shards) == [DocumentRange(*each) for each in expected]


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=60), SPLIT, st.integers(1, 59))
def test_identical_documents_are_on_one_side(documents: list[list[int]], split: str, cut: int) -> None:
    def hashes_of(shard: int) -> NDArray[np.uint64]:
        here = [documents[:cut], documents[cut:]][shard]
        tokens = np.array([token for document in here for token in document], dtype=np.uint16)
        return token_checksums(tokens, [len(document) for document in here])

    sizes = [len(documents[:cut]), len(documents[cut:])]
    sides: dict[tuple[int, ...], set[str]] = {}
    for part in PARTS:
        for shard, document in documents_of(select(part, split, WHOLE, "document_hash", sizes, hashes_of)):
            sides.setdefault(tuple(documents[shard * cut + document]), set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())
    assert len(sides) == len(set(map(tuple, documents)))


def test_shares_of_hashes_are_those_of_documents() -> None:
    size = 100_000
    hashes = token_checksums(np.arange(size), np.full(size, 1))
    for part, share in zip(PARTS, (0.949, 0.05, 0.001), strict=True):
        (selected,) = select(part, "949,50,1", WHOLE, "document_hash", [size], lambda shard: hashes)
        deviation = math.sqrt(size * share * (1 - share))
        assert abs(sum(map(len, selected.blocks(10**6))) - size * share) < 5 * deviation


def test_a_selection_of_hashes_says_which() -> None:
    low, high = hash_bounds("validation", "3,1", WHOLE)
    one, other = (
        HashRange(low, high, np.arange(3, dtype=np.uint64)),
        HashRange(low, high, np.arange(9, dtype=np.uint64)),
    )
    assert one.name == other.name == "documents of hash (version 1) 0xc000000000000000:0x10000000000000000"
    assert one == other and len({one, other}) == 1 and one != HashRange(low, high - 1, one.hashes)


def test_blocks_are_ascending_and_no_larger_than_asked() -> None:
    hashes = token_checksums(np.arange(1000), np.full(1000, 1))
    blocks = list(HashRange(0, 1 << 63, hashes).blocks(64))
    together = np.concatenate(blocks)
    assert max(map(len, blocks)) <= 64 and together.dtype == np.int64
    assert together.tolist() == np.flatnonzero(hashes < np.uint64(1 << 63)).tolist()


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("0.5:0.95", (0.5, 0.95)),
        (" 0 : 1 ", (0, 1)),
        (":", (0, 1)),
        (":0.95", (0, 0.95)),
        ("0.95:", (0.95, 1)),
        ("5e-1:1", (0.5, 1)),
        ([0.5, 0.95], (0.5, 0.95)),
        ((0, 1), (0, 1)),
        (["0.5", 1], (0.5, 1)),
    ],
)
def test_ranges(given_: object, expected: Shares) -> None:
    assert parse_range(given_) == expected


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        *((each, "not two shares") for each in ("", "0.5", "a:b", "0.1:0.2:0.3", "nan:1", "0.5-0.9")),
        *((each, "not two shares") for each in (0.5, None, [], [0.5], [0, 0.5, 1], {}, [True, 1], [None, 1])),
        *((each, "beyond 0 to 1") for each in ("-0.1:1", "0:1.1", "0:inf", [0, 100], [0.5, 95])),
        *((each, "nothing between") for each in ("0.5:0.5", "0.95:0.5", "1:", [1, 0])),
        ([0, 10**400], "not two shares"),
    ],
)
def test_what_is_no_range(given_: object, said: str) -> None:
    with pytest.raises(TrainyardError, match=f"{said}.*such as 0.5:0.95"):
        parse_range(given_)


def test_foreign_text_is_escaped() -> None:
    with pytest.raises(TrainyardError, match=r"\\x1b\[2J") as caught:
        parse_range("\x1b[2J" + "x" * 10_000)
    assert len(str(caught.value)) < 500
