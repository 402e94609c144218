"""Numbers near a wrong one that work, for messages."""

from collections.abc import Sequence


def multiples_near(value: int, divisor: int) -> list[int]:
    """The positive multiples of `divisor` next to `value`, below and above."""
    below = value // divisor * divisor
    return [multiple for multiple in (below, below + divisor) if multiple > 0]


def divisors_near(value: int, wanted: int) -> list[int]:
    """The divisors of `value` next to `wanted`, below and above."""
    divisors = [candidate for candidate in range(1, value + 1) if value % candidate == 0]
    below = [divisor for divisor in divisors if divisor <= wanted][-1:]
    above = [divisor for divisor in divisors if divisor > wanted][:1]
    return below + above


def either(values: Sequence[int]) -> str:
    """The values as a person would list them."""
    return " or ".join(map(str, values))
