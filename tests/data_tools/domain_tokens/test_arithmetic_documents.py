"""Made-up documents of multiplication facts: true, the same for a seed, and spread evenly."""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data_tools.domain_tokens.arithmetic_documents import arithmetic_document, documents_before
from data_tools.domain_tokens.expressions import WrongProduct, find_expressions
from data_tools.domain_tokens.multiplication import PAIRS

FIRST = """\
Practice sheet

Multiply 3 by 6: 3 * 6 is 18.
7 x 1 = 7
Multiply 2 by 5: 2 * 5 is 10.
Each of the 2 packs holds 9 cards. That is 2 × 9 = 18 cards in all.
Since 7 * 8 = 56, we also know that 8 * 7 = 56.
Since 8 * 1 = 8, we also know that 1 * 8 = 8.
1 x 9 = 9
8 x 9 = 72
3 × 2 = 6
"""


def test_the_same_seed_makes_the_same_documents() -> None:
    # Spelled out: datasets are made again from a seed and a number.
    assert arithmetic_document(0, 0) == FIRST
    assert arithmetic_document(0, 1) != FIRST != arithmetic_document(1, 0)


def test_all_is_true_and_every_fact_is_told_equally_often() -> None:
    told: Counter[tuple[int, int]] = Counter()
    forms = set()
    for number in range(90):
        lines = arithmetic_document(3, number).splitlines()
        assert not [
            found for line in lines for found in find_expressions(line, "weak") if isinstance(found, WrongProduct)
        ]
        forms |= {re.sub(r"\d+", "#", line) for line in lines}
        for line in lines:
            facts = re.findall(r"([1-9]) ?(?:\*|×|x|times) ?([1-9])", line)
            told.update(tuple(sorted(map(int, fact))) for fact in facts[:1])  # type: ignore[misc]
            for first, second, product in re.findall(r"(\d+) ?[*×x] ?(\d+) ?(?:=|is|equals) ?(\d+)", line):
                assert int(first) * int(second) == int(product)
    assert told == {(low, high): 10 if low == high else 20 for low, high in PAIRS}
    assert len(forms) > 20


@given(st.integers(0, 30), st.integers(1, 20))
def test_they_are_spread_evenly(number: int, made: int) -> None:
    before = [documents_before(each, number, made) for each in range(made)]
    assert before == sorted(before) and before[0] >= 0 and before[-1] <= number
    places = [each + made_up for made_up, each in enumerate(before)]
    for end in range(number + made + 1):  # in every beginning the share is that of the whole, to one document
        assert abs(sum(place < end for place in places) * (number + made) - end * made) <= number + made
