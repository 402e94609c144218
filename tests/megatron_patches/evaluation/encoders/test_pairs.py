"""Sentences and pairs as ids: what stands around them, and what a length leaves of them."""

from typing import Any

import pytest

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.errors import Refused
from megatron_patches.evaluation.encoders.pairs import encode_pairs, shortened_to
from megatron_patches.evaluation.encoders.text_ends import TextEnds, ends_of_pairs

ENDS = TextEnds((2,), (3,))


class Letters:
    """A tokenizer whose ids are those of letters."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]


TOKENIZER: Any = Letters()
A, B, C, D = map(ord, "abcd")


def test_what_stands_around_texts() -> None:
    assert encode_pairs([("ab",), ("",)], TOKENIZER, ENDS, 8) == [[2, A, B, 3], [2, 3]]
    assert encode_pairs([("ab", "cd")], TOKENIZER, ENDS, 8) == [[2, A, B, 3, C, D, 3]]
    assert encode_pairs([("ab", "cd")], TOKENIZER, TextEnds((), (3,)), 8) == [[A, B, 3, C, D, 3]]


def test_the_longer_text_gives_up_its_end() -> None:
    assert encode_pairs([("abcd", "cd")], TOKENIZER, ENDS, 7) == [[2, A, B, 3, C, D, 3]]
    assert encode_pairs([("abcd",)], TOKENIZER, ENDS, 5) == [[2, A, B, C, 3]]
    with pytest.raises(Refused, match="a length of 4 has no room for 2 texts"):
        encode_pairs([("a", "b")], TOKENIZER, ENDS, 4)


@pytest.mark.parametrize("room", range(2, 14))
@pytest.mark.parametrize("sizes", [(5, 5), (2, 9), (9, 2), (0, 9), (6, 7)])
def test_one_token_at_a_time(sizes: tuple[int, int], room: int) -> None:
    first, second = sizes
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    assert [len(part) for part in shortened_to(room, [[1] * size for size in sizes])] == [first, second]


def test_what_a_tokenizer_lacks() -> None:
    assert ends_of_pairs(SpecialTokens(9, cls=2, sep=3), 7) == ENDS
    assert ends_of_pairs(SpecialTokens(9), 7) == TextEnds((), (7,))
    with pytest.raises(Refused, match="no sep token and none that ends documents"):
        ends_of_pairs(SpecialTokens(9), None)
