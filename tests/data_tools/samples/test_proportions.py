"""Weights from tokens, and what is left where no source may be read too often."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.samples.blend import PERIOD, whole_weights
from data_tools.samples.proportions import alpha_of, powers, within_epochs
from megatron_patches.errors import TrainyardError


def test_powers() -> None:
    assert powers([1, 3], 1.0) == [0.25, 0.75]
    assert powers([1, 3], 0.0) == [1, 1]
    half = powers([16, 81, 100], 0.5)
    assert half[1] / half[0] == pytest.approx(9 / 4)
    assert powers([5, 7], alpha_of(2)) == powers([5, 7], 0.5)
    assert powers([5, 7], alpha_of(1)) == powers([5, 7], 1.0)


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan"), float("inf")])
def test_an_alpha_outside(alpha: float) -> None:
    with pytest.raises(TrainyardError, match="is not from 0 to 1"):
        powers([1, 2], alpha)


@pytest.mark.parametrize("temperature", [0, 0.99, -1, float("inf"), float("nan")])
def test_a_temperature_outside(temperature: float) -> None:
    with pytest.raises(TrainyardError, match="finite number of at least 1"):
        alpha_of(temperature)


def test_what_a_capped_source_leaves_goes_to_the_others_in_proportion() -> None:
    # of 800 tokens `a` may give 100: 1/8. The rest is shared 3 to 1, which `b` can give and `c` too
    whole = within_epochs([2, 3, 1], "abc", [100, 10_000, 10_000], tokens=800, most_epochs=1)
    assert whole == (PERIOD // 8, PERIOD * 7 * 3 // 32, PERIOD * 7 // 32)


def test_a_cap_that_another_one_brings_about() -> None:
    # `a` is capped at 100 of 1,000; its share would bring `b` from 450 to 675, above its 600
    whole = within_epochs([1, 3, 1], "abc", [50, 300, 5000], tokens=1000, most_epochs=2)
    assert whole == (PERIOD // 10, PERIOD * 6 // 10, PERIOD - PERIOD // 10 - PERIOD * 6 // 10)


def test_no_cap_reached() -> None:
    assert within_epochs([1, 2], "ab", [100, 100], 90, 4.0) == whole_weights([1, 2])


@settings(max_examples=60)
@given(
    sources=st.lists(st.tuples(st.floats(1e-3, 1e3), st.integers(10**6, 10**9)), min_size=1, max_size=12),
    most_epochs=st.floats(0.5, 8),
    part=st.floats(0.01, 1.1),
)
def test_tokens_are_delivered_within_the_epochs_or_refused(
    sources: list[tuple[float, int]], most_epochs: float, part: float
) -> None:
    weights, held = [weight for weight, _ in sources], [tokens for _, tokens in sources]
    names = [f"s{number}" for number in range(len(sources))]
    tokens = max(1, round(sum(held) * most_epochs * part))
    try:
        whole = within_epochs(weights, names, held, tokens, most_epochs)
    except TrainyardError:
        # what is surely there is never refused: but for rounding a part of the period off each source
        at_most = Fraction(most_epochs) * sum(held) * (PERIOD - len(held)) / PERIOD
        assert tokens > at_most or min(held) * most_epochs * PERIOD < tokens
        return
    assert sum(whole) == PERIOD and min(whole) >= 1
    exact = [tokens * Fraction(each, PERIOD) for each in whole]
    limits = [Fraction(most_epochs) * each for each in held]
    assert all(read <= limit for read, limit in zip(exact, limits, strict=True))
    # below their limits sources keep their proportions, but for the rounding: whole / weight is one number for all
    free = [number for number in range(len(whole)) if whole[number] + 1 <= limits[number] * PERIOD / tokens]
    least = max((Fraction(whole[number] - 1) / Fraction(weights[number]) for number in free), default=Fraction(0))
    most = min(
        (Fraction(whole[number] + 1) / Fraction(weights[number]) for number in free if whole[number] > 1), default=least
    )
    assert least <= most
    for number in set(range(len(whole))) - set(free):  # and those at their limits have no more than these
        assert Fraction(whole[number] - 1) / Fraction(weights[number]) <= most or not free


@pytest.mark.parametrize(
    ("held", "tokens", "most_epochs", "told"),
    [
        ([100, 100], 1000, 4, "1,000 tokens cannot be read: the sources hold 200, which gives 800"),
        ([10**6, 1], 10**6, 1, "small.*less than 1/65,536"),
        ([1001, 1000], 2001, 1, "are all that the sources give"),
    ],
)
def test_what_cannot_be_delivered(held: list[int], tokens: int, most_epochs: float, told: str) -> None:
    with pytest.raises(TrainyardError, match=told):
        within_epochs([1, 1], ["large", "small"], held, tokens, most_epochs)


def test_remedies_are_sufficient() -> None:
    """The figures that a refusal gives are taken when given."""
    held = [1001, 777, 1001]
    with pytest.raises(TrainyardError, match=r"--max-epochs 7.198$"):
        within_epochs([1, 1, 1], "abc", held, 20_000, 4)
    assert sum(within_epochs([1, 1, 1], "abc", held, 20_000, 7.198)) == PERIOD
