"""Names taken apart."""

from pathlib import Path

import pytest

from tools.run_files.name import family_number, order, parse_run_name


@pytest.mark.parametrize(
    ("name", "number", "letter", "parameters", "family"),
    [
        ("tr0a-4M-stdlib", 0, "a", 4e6, "tr0-4M-stdlib"),
        ("tr3d-1B3-more-warmup", 3, "d", 1.3e9, "tr3-1B3-more-warmup"),
        ("tr11-176B-ml", 11, "", 176e9, "tr11-176B-ml"),
        ("tr20a-125M-baseline", 20, "a", 125e6, "tr20-125M-baseline"),
        ("tr5-1T5-x.y", 5, "", 1.5e12, "tr5-1T5-x.y"),
    ],
)
def test_names(name: str, number: int, letter: str, parameters: float, family: str) -> None:
    parsed = parse_run_name(name)
    assert parsed is not None
    assert (parsed.number, parsed.letter, parsed.family) == (number, letter, family)
    assert parsed.parameters == pytest.approx(parameters, rel=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tr3",
        "tr3-1B3",
        "tr3-1B3-",
        "tr3dd-1B3-x",
        "tr03-1B3-x",
        "3d-1B3-x",
        "tr3d-large-x",
        "tr3d-1B3-x y",
        "tr3D-1B3-x",
    ],
)
def test_what_is_no_name(name: str) -> None:
    assert parse_run_name(name) is None


def test_families() -> None:
    assert family_number("tr3-1B3-baseline") == 3
    assert family_number("tr0-stdlib-gpt") == 0
    assert [family_number(name) for name in ("tr3d-1B3-x", "tr3", "stdlib", "tr3-")] == [None] * 4


def test_numbers_sort_as_numbers() -> None:
    names = ["tr20-x", "tr3-x", "other", "tr3-a", "tr0-x"]
    assert sorted(names, key=lambda name: order(Path(name))) == ["tr0-x", "tr3-a", "tr3-x", "tr20-x", "other"]


def test_a_file_is_sorted_before_those_whose_names_go_on() -> None:
    names = ["tr6-1B3-prefix-unbiased.yaml", "tr6-1B3-prefix.yaml", "tr6b-350M-prefix.yaml"]
    expected = ["tr6-1B3-prefix.yaml", "tr6-1B3-prefix-unbiased.yaml", "tr6b-350M-prefix.yaml"]
    assert sorted(names, key=lambda name: order(Path(name))) == expected
