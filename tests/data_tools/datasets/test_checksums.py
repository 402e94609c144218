from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.datasets import checksums
from data_tools.datasets.checksums import checksum, token_checksums

DOCUMENTS = st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=12), max_size=12)
MODULUS = 1 << 64


def mixed(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % MODULUS
    value = (value ^ value >> 27) * 0x94D049BB133111EB % MODULUS
    return value ^ value >> 31


def by_the_formula(tokens: Sequence[int]) -> int:
    weyl = 0x9E3779B97F4A7C15
    terms = sum(mixed(((place + 1) * weyl + token) % MODULUS) for place, token in enumerate(tokens))
    return mixed((terms + (len(tokens) + 1) * weyl) % MODULUS)


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        ([], 0xE220A8397B1DCDAF),  # the first number of splitmix64 with seed 0
        ([0], 0xB382A305F4414F5E),
        ([1], 0xF18D6CE93D6CF1EE),
        ([0, 0], 0x78D1CD407FBBD226),
        ([1, 2, 3], 0xF3DB055163C55A53),
        ([3, 2, 1], 0xF3D7E73E2EEB77BA),
    ],
)
def test_they_never_change(tokens: list[int], value: int) -> None:
    assert checksum(tokens) == value == by_the_formula(tokens)


@given(DOCUMENTS, st.sampled_from(["u2", "<i4", "<i8", "<u8"]), st.integers(1, 9))
def test_the_formula_holds_for_documents_that_lie_in_any_type_and_across_pieces(
    documents: list[list[int]], dtype: str, piece: int
) -> None:
    tokens = np.array([token for document in documents for token in document], dtype=dtype)
    lengths = [len(document) for document in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "TOKENS_AT_ONCE", piece)
        found = token_checksums(tokens, lengths)
    assert found.dtype == np.uint64 and found.tolist() == list(map(by_the_formula, documents))


def test_a_document_longer_than_a_piece() -> None:
    tokens = np.arange(checksums.TOKENS_AT_ONCE * 2 + 5) % 50_000
    whole = int(token_checksums(tokens, [3, len(tokens) - 3])[1])
    assert whole == checksum(tokens[3:]) == by_the_formula(tokens[3:].tolist())


def test_no_two_of_many_short_documents_have_one() -> None:
    pairs = np.stack(np.meshgrid(np.arange(300), np.arange(300)), axis=-1).reshape(-1)
    assert len(np.unique(token_checksums(pairs, np.full(len(pairs) // 2, 2)))) == 90_000


def test_every_bit_is_as_often_set_as_not() -> None:
    found = token_checksums(np.arange(40_000, dtype=np.uint16), np.full(40_000, 1))
    shares = [float(np.mean(found >> np.uint64(bit) & np.uint64(1))) for bit in range(64)]
    assert min(shares) > 0.485 and max(shares) < 0.515  # 6 standard deviations


def test_terms_of_different_places_keep_apart() -> None:
    # the nearest multiples are those of Fibonacci numbers; the docstring claims 2**32 for distances below 2**30
    fibonacci = [1, 2]
    while fibonacci[-1] < 1 << 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    distances = [number * int(checksums.WEYL) % MODULUS for number in fibonacci[:-1]]
    assert min(min(each, MODULUS - each) for each in distances) > 1 << 32


@pytest.mark.parametrize(
    ("tokens", "lengths"), [(np.arange(3), [2]), (np.arange(3.0), [3]), (np.ones((2, 2), int), [4])]
)
def test_what_is_no_stream_of_documents_is_a_mistake_of_the_caller(tokens: np.ndarray, lengths: list[int]) -> None:
    with pytest.raises(AssertionError, match="lengths cover the tokens"):
        token_checksums(tokens, lengths)
