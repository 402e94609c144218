"""The multiplication table as tokens: `<MUL_a_b_c>` for each product c = a * b of one-digit operands, a <= b."""

import re
from typing import Literal

Mode = Literal["weak", "strict"]
"""which expressions count: bare ones and those with their product, or those with their product alone"""
DIGITS = range(1, 10)
PAIRS = [(low, high) for low in DIGITS for high in DIGITS if low <= high]
"""45 pairs; one token serves both orders"""
SPELLING = re.compile(r"<MUL_[1-9]_[1-9]_[0-9]{1,2}>")
"""what a text writes where it spells such a token, or something like one"""


def multiplication_token(first: int, second: int) -> str:
    """The token of two operands from 1 to 9, in either order."""
    low, high = sorted((first, second))
    return f"<MUL_{low}_{high}_{low * high}>"


def multiplication_tokens() -> list[str]:
    """All 45, from `<MUL_1_1_1>` to `<MUL_9_9_81>`."""
    return [multiplication_token(low, high) for low, high in PAIRS]
