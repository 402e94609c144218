"""Products of two one-digit operands in text: `3*4`, `3 x 4`, `3 × 4`, with or without `= 12`.

An expression has two operands from 1 to 9 in ASCII, one sign between them, and on both sides of the sign the same: one
space, or none. There are three kinds of sign:

- `*`, `∗` (U+2217) and `⋅` (U+22C5) are written for products alone: in `weak` mode a bare expression with one counts.
- `×` (U+00D7), `✕` (U+2715) and `✖` (U+2716, also as an emoji) are written for dimensions too. In `weak` mode a bare
  expression counts unless it may be one: "a" or "size" stands before it, or a word behind it that is none of a few (is,
  and, equals ...).
- `x`, `X` and `·` (U+00B7) are more often something else, `2 x 4` a board and `3·4` a decimal. In `weak` mode they
  count bare only in an open equation (`3 x 4 = ?`, `3 x 4 = __`, or with nothing behind the equals sign), behind "what
  is", "calculate" and the like (`What is 3 x 4?`), and before "is", "equals" and the like with the right product.

Bullets (`•`, `∙`) are no signs of multiplication. With `=` and the right product any sign counts, in both modes. With
another number nothing is touched in any mode: neither `3*4=13` nor `13 = 3*4`, `3*4=12.5`, `3*4 = 12 + 1`, nor where a
side stands in brackets, quotation marks or emphasis, as in `(3*4) = 13` and `3*4 = **13**`, nor in `3*4 is 13`. In
`5 + 3*4 = 17` the equals sign is not about the product alone, so `3*4` is a bare expression.

Numbers, signs, operators, letters and currencies that touch an expression keep it as it is, and so do chains (`3*4*5`),
comparisons (`3*4 > 10`, `12 == 3*4`) and thousands (`3 * 4 000`). All of it is asked of one line: an operator or number
on the next one is not seen. Other words are not understood: `3*4 makes about 13` has a bare expression.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from data_tools.domain_tokens.multiplication import Mode, multiplication_token
from data_tools.domain_tokens.surroundings import (
    GAP,
    another_is_said,
    begins_well,
    end_of_product,
    ends_a_sum,
    ends_well,
    equals_another_number,
    is_a_dimension,
    is_compared,
    is_told_in_words,
    stands_in_a_pair,
    states_another_number,
)

_NOT_BARE, _DIMENSIONS_TOO = frozenset("xX·"), frozenset("×✕✖")
_CANDIDATE = re.compile(r"([1-9])([ \u00a0\u2009\u202f]?)([*∗⋅·×✕✖xX]\ufe0f?)\2([1-9])")
_EQUALS = re.compile(rf"{GAP}*+=(?![=>/~]|<(?!<)){GAP}*+")
_OPEN = re.compile(r"\Z|[\r\n?_…□]|\.\.\.")


class Expression(NamedTuple):
    """One product in a text: characters [start, end)."""

    start: int
    end: int
    token: str
    stated: bool
    """Whether the product is part of it."""


class WrongProduct(NamedTuple):
    """An equation that is left as it is: its other side is not the product, or more than that."""

    start: int


def find_expressions(text: str, mode: Mode) -> Iterator[Expression | WrongProduct]:
    """The expressions of a text that count, and the equations that are left alone; in order, none overlaps another."""
    position = 0
    while (found := _CANDIDATE.search(text, position)) is not None:
        judged = _judge(text, found, mode)
        if judged is not None:
            yield judged
        # What is left alone may hold another one: of 1*3*4 the second, which then is refused by what stands before it.
        position = judged.end if isinstance(judged, Expression) else found.start() + 1


def _judge(text: str, found: re.Match[str], mode: Mode) -> Expression | WrongProduct | None:
    start, end = found.span()
    first, second = int(found[1]), int(found[4])
    if not begins_well(text, start):
        return None
    product, token = first * second, multiplication_token(first, second)
    equals = _EQUALS.match(text, end)
    if (equals is not None or ends_well(text, start, end)) and equals_another_number(text, start, product):
        return WrongProduct(start)
    if equals is not None and not ends_a_sum(text, start):
        if (stated_end := end_of_product(text, equals.end(), product)) is not None:
            return Expression(start, stated_end, token, True)
        if states_another_number(text, equals.end(), product):
            return WrongProduct(start)
    if equals is None and not ends_a_sum(text, start) and another_is_said(text, end, product):
        return WrongProduct(start)
    if equals is None and stands_in_a_pair(text, start, end):
        outer = _EQUALS.match(text, end + 1)
        if outer is not None and states_another_number(text, outer.end(), product):
            return WrongProduct(start)
    if mode == "strict" or is_compared(text, start):
        return None
    sign = found[3][0]
    if equals is not None:
        counts = sign not in _NOT_BARE or _OPEN.match(text, equals.end()) is not None
    else:
        dimension = sign in _DIMENSIONS_TOO and is_a_dimension(text, start, end)
        unlikely = sign in _NOT_BARE and not is_told_in_words(text, start, end, product)
        counts = not unlikely and not dimension and ends_well(text, start, end)
    return Expression(start, end, token, False) if counts else None
