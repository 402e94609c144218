"""YAML 1.2 where PyYAML would read version 1.1."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_patches.configuration.yaml_text import LARGEST, dump_yaml, parse_yaml, read_yaml
from megatron_patches.errors import TrainyardError


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


# ten times as many values on each line: 2 x 10^30 in the end
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 31)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[" * 20_000, "nested too deeply", id="lists"),
        pytest.param("{a: " * 20_000, "nested too deeply", id="mappings"),
        pytest.param("- " * 20_000 + "x", "nested too deeply", id="blocks"),
        pytest.param("? " * 20_000 + "x", "nested too deeply", id="keys"),
        pytest.param(LAUGHS, "line 6, column 5: aliases stand for more than 100,000", id="laughs"),
        pytest.param("[" * (LARGEST + 1), "characters; at most 262,144 of YAML are read", id="size"),
        pytest.param("a: &a [*a]", "an alias stands for what it is part of", id="circle"),
        pytest.param("a: &a {b: *a}", "an alias stands for what it is part of", id="circle of keys"),
        pytest.param("a: " + "9" * 5000, "line 1, column 4: 9+ ... 9+ is too large a number", id="digits"),
        pytest.param("a: -" + "9" * 21, "is too large a number", id="below 64 bits"),
        pytest.param("a: 1e999", "is too large a number", id="float"),
        pytest.param("? " + "9" * 5000 + "\n: a", "is too large a number", id="digits of a key"),
        pytest.param("[a]: b", r"key \['a'\] is not a name", id="key"),
        pytest.param("a: !!timestamp 2024-99-99", "could not determine a constructor", id="date"),
        pytest.param("a: !!binary x", "could not determine a constructor", id="binary"),
        pytest.param("a: !!python/object/apply:os.system [true]", "could not determine a constructor", id="python"),
        pytest.param("a: !!int x", "x is too large a number, or none", id="no integer"),
        pytest.param("a: !!float x", "x is too large a number, or none", id="no float"),
        pytest.param("a: !!bool x", "x is neither true nor false", id="no boolean"),
        pytest.param("a: !!int [1]", "expected one value, found a list", id="list for a number"),
        pytest.param("a: !!map [1]", "expected keys and values", id="list for keys"),
        pytest.param("a: !!seq {b: 1}", "line 1", id="keys for a list"),
        pytest.param('a: "\\ud800"', "half of a surrogate pair", id="surrogate"),
        pytest.param('a: "\\U00110000"', "not YAML", id="beyond Unicode"),
        pytest.param('a: "\\UFFFFFFFF"', "not YAML", id="beyond chr"),
        pytest.param("a: \x00", "not YAML", id="null byte"),
        pytest.param("--- a\n--- b", "expected a single document", id="two documents"),
        pytest.param("a: *b", "undefined alias", id="no anchor"),
        pytest.param("a: 'x", "end of stream", id="unfinished"),
        pytest.param("%YAML 9.9\n--- a", "line 1", id="version"),
    ],
)
def test_hostile_text(text: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(TrainyardError, match=rf"^here.*({message})") as caught:
        parse_yaml(text, "here")
    assert time.monotonic() - started < 20
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_an_alias_stands_for_its_anchor() -> None:
    assert parse_yaml("a: &a {b: [1]}\nc: *a\nd: *a", "test") == {key: {"b": [1]} for key in "acd"}
    assert parse_yaml("18446744073709551615", "test") == 2**64 - 1


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("ab01:-?[]{}&*!|>'\"%@`,# \n\t\\.~\ud800\x1b")), max_size=40))
def test_any_characters_are_a_value_or_one_error(text: str) -> None:
    try:
        parse_yaml(text, "here")
    except TrainyardError as error:
        assert str(error).startswith("here")


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(TrainyardError, match=r"a.yaml: no such file"):
        read_yaml(path)
    os.mkfifo(path)
    with pytest.raises(TrainyardError, match=r"a.yaml is a pipe"):
        read_yaml(path)
    path.unlink()
    path.write_bytes(b"a: \xff")
    with pytest.raises(TrainyardError, match=r"a.yaml: cannot be read as text"):
        read_yaml(path)
    path.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(TrainyardError, match=r"a.yaml has 262,145 bytes; at most 262,144"):
        read_yaml(path)
    path.write_text("- a")
    with pytest.raises(TrainyardError, match="holds keys and values"):
        read_yaml(path)
    path.write_text("\ufeffa: 1")
    assert read_yaml(path) == {"a": 1}
