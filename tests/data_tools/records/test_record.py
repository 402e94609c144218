import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.records.record import Message, Record, RecordForm
from megatron_patches.errors import TrainyardError

PAIRS = RecordForm("pairs", ("q", "a"), None, " ")
CHAT = RecordForm("chat", ("messages",), "plain")
USER, ANSWER = {"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}
SYSTEM = {"role": "system", "content": "be brief"}


def records_in(form: RecordForm, path: Path, largest: int = LARGEST_DOCUMENT) -> list[Record]:
    """The records of a file; the first entry that is none raises its reason."""
    found: list[Record] = []
    for block in form.parts_of([path], largest).parts[0].blocks():
        records, bad = form.records_of(block, largest)
        if bad:
            raise TrainyardError(bad[0].reason)
        found += records
    return found


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_pairs_are_a_question_and_its_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"q": "é", "a": "1", "n": 2}, {"a": "2", "q": ""})
    first, second = records_in(PAIRS, path)
    assert first.messages == (Message("user", "é"), Message("assistant", "1"))
    assert (first.where, first.text_bytes, first.characters) == (f"{path}, line 1", 3, 2)
    assert second.messages == (Message("user", ""), Message("assistant", "2"))


def test_chats_of_all_orders_that_may_be(tmp_path: Path) -> None:
    chats = [
        [USER, ANSWER],
        [SYSTEM, USER, ANSWER, USER, ANSWER],
        [ANSWER, USER],
        [SYSTEM, ANSWER],
        [USER, ANSWER, USER],
    ]
    path = write(tmp_path / "a.jsonl", *({"messages": chat} for chat in chats))
    read = [[each._asdict() for each in record.messages] for record in records_in(CHAT, path)]
    assert read == chats


def test_columns_of_a_parquet_file(tmp_path: Path) -> None:
    rows = {"q": ["1", "2"], "a": ["x", "y"], "messages": [[USER, ANSWER], [ANSWER]]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    assert [record.messages[1].content for record in records_in(PAIRS, tmp_path / "a.parquet")] == ["x", "y"]
    assert [len(record.messages) for record in records_in(CHAT, tmp_path / "a.parquet")] == [2, 1]
    with pytest.raises(TrainyardError, match=r"a\.parquet: no column 'b', only .*; see --pairs"):
        records_in(RecordForm("pairs", ("q", "b"), None), tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"q": "x"}, "line 2: no key 'a', only q; see --pairs"),
        ({"q": None, "a": "x"}, "line 2: 'q' is null, expected a text"),
        ({"q": "x", "a": 5}, "line 2: 'a' is a number, expected a text"),
        ({"q": "x", "a": ["y"]}, "line 2: 'a' is a list, expected a text"),
        ({"q": "x", "a": ""}, "line 2: 'a' is empty, expected an answer"),
        ({"q": "x", "a": " \n"}, "line 2: 'a' is empty, expected an answer"),
        ({"q": "x", "a": "\ud800"}, "line 2: message 2 has half of a surrogate pair"),
        ([], "line 2 is not a JSON object but a list"),
    ],
)
def test_bad_pairs_are_named(tmp_path: Path, record: object, message: str) -> None:
    path = write(tmp_path / "a.jsonl", {"q": "x", "a": "y"}, record)
    with pytest.raises(TrainyardError, match=rf"a\.jsonl, {message}"):
        list(records_in(PAIRS, path))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "line 2: 'messages' is null, expected a list of messages such as"),
        ("hello", "line 2: 'messages' is a string, expected a list"),
        ({"role": "user"}, "line 2: 'messages' is an object, expected a list"),
        ([], "line 2: no answer"),
        ([USER], "line 2: no answer"),
        ([SYSTEM, USER], "line 2: no answer"),
        (["hello"], r"line 2, message 1: expected an object with \"role\" and \"content\", found a string"),
        ([{"from": "human", "value": "x"}], "line 2, message 1: expected an object .* found from, value"),
        (
            [{**USER, "role": "\x1b[2J"}],
            r"line 2, message 1: unknown role '\\x1b\[2J', expected system, user, assistant",
        ),
        ([{**USER, "role": ["user"]}], "line 2, message 1: unknown role"),
        ([USER, {**ANSWER, "content": None}], "line 2, message 2: content is null, expected a text"),
        ([USER, {**ANSWER, "content": [{"type": "text"}]}], "line 2, message 2: content is a list"),
        ([USER, {**ANSWER, "tool_calls": [{"name": "f"}]}], "line 2, message 2 has tool_calls"),
        ([USER, {**ANSWER, "content": "\n "}], "line 2, message 2: an empty answer"),
        ([USER, USER, ANSWER], "line 2, message 2: two messages of the role user in a row"),
        ([USER, ANSWER, ANSWER], "line 2, message 3: two messages of the role assistant in a row"),
        ([USER, SYSTEM, ANSWER], "line 2, message 2: a message of the role system is not the first"),
        ([SYSTEM, SYSTEM, ANSWER], "line 2, message 2: a message of the role system is not the first"),
        ([{**USER, "content": "\ud800"}, ANSWER], "line 2: message 1 has half of a surrogate pair"),
    ],
)
def test_bad_chats_are_named(tmp_path: Path, messages: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [USER, ANSWER]}, {"messages": messages})
    with pytest.raises(TrainyardError, match=rf"a\.jsonl, {message}"):
        list(records_in(CHAT, path))


def test_a_record_beyond_the_limit(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"q": ["x" * 90], "a": ["y" * 20]}), tmp_path / "a.parquet")
    with pytest.raises(TrainyardError, match=r"row 1 is longer .*--max-document-mib"):
        list(records_in(PAIRS, tmp_path / "a.parquet", largest=100))
    assert len(list(records_in(PAIRS, tmp_path / "a.parquet", largest=110))) == 1


def test_a_text_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(TrainyardError, match="one text without keys, but --chat asks for records"):
        list(records_in(CHAT, tmp_path / "a.txt"))


def test_files_of_a_folder_that_hold_records_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "chats.json").write_text(json.dumps([{"messages": [USER, ANSWER]}]))
    (folder / "card.json").write_text('{"license": "none"}')
    found = CHAT.parts_of([folder])
    assert [each.name for each in found.parts] == ["in/chats.json"]
    assert [each.name for each in found.not_read] == ["in/card.json"]


@pytest.mark.parametrize("keys", [("q",), ("q", "q"), ("q", ""), ("q", "a", "b"), ("q", "\udc80")])
def test_keys_of_pairs_that_cannot_be(keys: tuple[str, ...]) -> None:
    with pytest.raises(TrainyardError, match=r"--pairs '|UTF-8"):
        RecordForm("pairs", keys, None)


def test_a_chat_has_one_key() -> None:
    with pytest.raises(TrainyardError, match="--chat names no key"):
        RecordForm("chat", ("",), "plain")
