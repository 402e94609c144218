"""Names, text, files and JSON of others."""

import json
import os
from pathlib import Path

import pytest

from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_json, parse_object
from megatron_patches.foreign.names import check_name, is_name
from megatron_patches.foreign.printable import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("漢字 é", "漢字 é"),
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
        ("a\u202eb\u200bc", r"a\u202eb\u200bc"),
        ("\ud800", r"\ud800"),
        (os.fsdecode(b"\xff"), r"\xff"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        ("\x9b31m", r"\x9b31m"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_lines_of_a_message_stay_lines() -> None:
    assert printable("a\n\tb\x1b", layout=True) == "a\n\tb\\x1b"
    assert len(shortened("x" * 10_000, 100)) < 120


@pytest.mark.parametrize("name", ["tr1-125M-x", "step-487500-val_ppl-3.72168.ckpt", "épreuve", "a", "x=1,y+2_z"])
def test_names(name: str) -> None:
    assert is_name(name)
    assert check_name(name, "a run") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", ".hidden", "a/b", "a b", "a\nb", "a@5", "a\x1b", "a.", "\ud800", "x" * 201, "a\u202e"]
)
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(TrainyardError, match="cannot be the name of a run"):
        check_name(name, "a run")


def test_only_plain_files_are_read_and_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(Damaged, match="at most 4"):
        read_bounded(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(Refused):
            read_bounded(odd)
    for absent in (tmp_path / "none", tmp_path / "file" / "below"):
        with pytest.raises(Missing):
            read_bounded(absent)
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(Refused):
        read_bounded(tmp_path / "round")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000, b'{"a":' * 50_000, b"nul", "é".encode("utf-16")]
)
def test_odd_json_is_one_named_error(text: bytes) -> None:
    with pytest.raises(Damaged, match=r"^notes:3 is"):
        parse_json(text, "notes:3")


def test_lone_surrogates_do_not_come_in() -> None:
    assert parse_json(rb'{"\ud800": ["\udfff", "\ud83d\ude00"]}', "x") == {"\ufffd": ["\ufffd", "\U0001f600"]}


@pytest.mark.parametrize(("levels", "read"), [(100, True), (102, False), (900, False)])
@pytest.mark.parametrize("inner", ['"a"', r'"\ud800"', '{"b": "[{"}'])
def test_deep_nesting_is_refused_where_it_could_still_be_parsed(levels: int, read: bool, inner: str) -> None:
    text = "[" * (levels - inner.startswith("{")) + inner + "]" * (levels - inner.startswith("{"))
    if read:
        repr(parse_json(text, "x"))
    else:
        with pytest.raises(Damaged, match=r"^x is nested too deeply"):
            parse_json(text, "x")


def test_many_brackets_are_no_nesting() -> None:
    values = [{"text": "[" * 500}] * 500
    assert parse_json(json.dumps(values), "x") == values


@pytest.mark.parametrize("text", ["[]", "1", "null", '"a"', "true", "1.5"])
def test_an_object_is_asked_for(text: str) -> None:
    with pytest.raises(Damaged, match="is not a JSON object but"):
        parse_object(text, "x")
