"""Made-up documents of multiplication facts, and how they are spread over the documents of a dataset.

Document k of a seed is always the same, whichever others are made. The documents deal out a deck of all 81 products in
both orders, nine at a time, shuffled for every nine documents: so every fact is told equally often, in any stretch.
"""

import random
from typing import TypeVar

from data_tools.domain_tokens.multiplication import DIGITS

_Item = TypeVar("_Item")

FACTS_IN_A_DOCUMENT = 9
_DECK = [(first, second) for first in DIGITS for second in DIGITS]
_DOCUMENTS_OF_A_DECK = len(_DECK) // FACTS_IN_A_DOCUMENT
_HEADINGS = (
    "Multiplication facts", "Times tables", "Some products to remember", "Practice sheet", "Mental arithmetic",
    "Small products, worked out",
)  # fmt: skip
_FORMS = (
    "{a} * {b} = {c}",
    "{a}*{b}={c}",
    "{a} × {b} = {c}",
    "{a} x {b} = {c}",
    "{a} times {b} is {c}.",
    "What is {a} × {b}? It is {c}.",
    "Q: {a} x {b} = ?\nA: {c}",
    "The product {a} * {b} equals {c}.",
    "Since {a} * {b} = {c}, we also know that {b} * {a} = {c}.",
    "Multiply {a} by {b}: {a} * {b} is {c}.",
    "To divide {c} by {a}, remember that {a} × {b} = {c}; the answer is {b}.",
)  # fmt: skip
_STORIES = (
    "Each of the {a} {boxes} holds {b} {pens}. That is {a} × {b} = {c} {pens} in all.",
    "{a} {boxes} of {b} {pens} make {c} {pens}, because {a} × {b} = {c}.",
    "There are {b} {pens} in one of the {boxes}, and {a} such {boxes}. Altogether: {a} * {b} = {c}.",
)
_THINGS = (
    ("boxes", "pens"), ("bags", "apples"), ("shelves", "books"), ("rows", "chairs"), ("packs", "cards"),
    ("baskets", "eggs"), ("teams", "players"), ("trays", "cups"),
)  # fmt: skip


def arithmetic_document(seed: int, number: int) -> str:
    """One document of nine facts; the same for the same seed and number on every machine."""
    draw = _Draws(f"{seed}:document:{number}")
    lines = [draw.one_of(_HEADINGS), ""] if draw.below(3) else []
    for first, second in _facts(seed, number):
        form = draw.one_of(_STORIES if draw.below(4) == 0 and min(first, second) > 1 else _FORMS)
        boxes, pens = draw.one_of(_THINGS)
        lines.append(form.format(a=first, b=second, c=first * second, boxes=boxes, pens=pens))
    return "\n".join(lines) + "\n"


def documents_before(each: int, number: int, made: int) -> int:
    """How many of `number` given documents stand before made-up document `each` of `made`.

    Among all, it stands at place (2 each + 1) (number + made) // (2 made); `each` made-up ones are before it.
    """
    return (2 * each + 1) * (number + made) // (2 * made) - each


def _facts(seed: int, number: int) -> list[tuple[int, int]]:
    deck, part = divmod(number, _DOCUMENTS_OF_A_DECK)
    cards = _Draws(f"{seed}:deck:{deck}").shuffled(_DECK)
    return cards[part * FACTS_IN_A_DOCUMENT : (part + 1) * FACTS_IN_A_DOCUMENT]


class _Draws:
    """Random choices by `Random.random` alone, whose sequence Python promises to keep for a seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, end: int) -> int:
        return int(self._random.random() * end)

    def one_of(self, choices: tuple[_Item, ...]) -> _Item:
        return choices[self.below(len(choices))]

    def shuffled(self, items: list[_Item]) -> list[_Item]:
        """By Fisher and Yates."""
        cards = list(items)
        for last in range(len(cards) - 1, 0, -1):
            other = self.below(last + 1)
            cards[last], cards[other] = cards[other], cards[last]
        return cards
