"""YAML 1.2 where PyYAML would read version 1.1."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_patches.configuration.yaml_text import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6e-4", 6e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("6.", 6.0),
        ("010", 10),
        ("-3", -3),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("e5", "e5"),
        ("true", True),
        ("false", False),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("True", "True"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'6e-4'", "6e-4"),
        ("949,50,1", "949,50,1"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    read = parse_yaml(text, "test")
    assert read == value
    assert type(read) is type(value)


def test_no_hidden_inheritance() -> None:
    assert parse_yaml("{'<<': {a: 1}, b: 2}", "test") == {"<<": {"a": 1}, "b": 2}
    assert parse_yaml("a: &x {c: 1}\n<<: *x\n", "test") == {"a": {"c": 1}, "<<": {"c": 1}}


@pytest.mark.parametrize(
    "text", ["6e-4", "1_000", "yes", "true", "null", "~", "", "010", "a: b", "#", " x ", "'", "\n"]
)
def test_what_is_written_reads_back(text: str) -> None:
    assert parse_yaml(dump_yaml({"why": text}), "test") == {"why": text}


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])), number=st.floats(allow_nan=False, allow_infinity=False))
@example(text="\x85\u2028", number=0.0)
def test_any_text_and_number_read_back(text: str, number: float) -> None:
    settings = {"why": text, "rate": number}
    assert parse_yaml(dump_yaml(settings), "test") == settings
