"""Sizes for people."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.sizes import counted, readable

SCALES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1 kB"), (1316605952, "1.32 GB"), (999_900_000, "1 GB"),
        (999_499, "999 kB"), (999_500, "1 MB"), (99_960, "100 kB"), (5 * 10**15, "5 PB"),
    ],
)  # fmt: skip
def test_three_digits_and_a_unit(size: int, text: str) -> None:
    assert readable(size) == text


@given(st.integers(0, 999 * 10**18) | st.floats(0, 9e20))
def test_every_size_is_a_number_below_a_thousand_of_its_unit_and_right_to_three_digits(size: float) -> None:
    found = re.fullmatch(r"(\d{1,3}|\d\.\d{1,2}|\d\d\.\d) (B|kB|MB|GB|TB|PB|EB)", readable(size))
    assert found is not None, readable(size)
    assert float(found[1]) * SCALES[found[2]] == pytest.approx(size, rel=0.005, abs=0.5)


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (1, ("problem",), "1 problem"),
        (0, ("problem",), "0 problems"),
        (2, ("copy", "copies"), "2 copies"),
        (1, ("copy", "copies"), "1 copy"),
        (1234, ("step",), "1,234 steps"),
    ],
)
def test_one_of_a_thing_is_no_plural(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected
