"""The fast parser and the strict one take and refuse the same lines."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_tools.reading.block import BadEntry, Block
from data_tools.reading.entries import documents_of, entries_of
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.json_text import kind_of, parse_object
from tests.hostile.cases import TIMES
from tests.hostile.oddities import odd_text

GOOD = '{"text": "one", "n": [1, 2.5, {"a": null}], "o": "two"}'
ODD = [
    *('{"text": NaN}', '{"text": "a", "n": NaN}', '{"text": "a", "n": -Infinity}', '{"text": "a", "n": 1e999}'),
    *('\ufeff{"text": "a"}', '{"text": "\\ud800"}', '{"text": "a", "n": "\\udc00"}', '{"text": "\\ud83d\\ude00"}'),
    *('{"text": "a", "text": "b"}', '{"text": 5, "text": "b"}', '{"text": "b", "text": null}'),
    *(f'{{"text": "a", "n": {"9" * digits}}}' for digits in (19, 20, 25, 309, 4300, 4301)),
    *(f'{{"text": {"9" * digits}}}' for digits in (19, 20, 25, 309, 4301)),
    *(f'{{"text": "a", "n": {"[" * deep}{inner}{"]" * deep}}}' for deep in (98, 99, 100, 101, 1500) for inner in "1 "),
    *(f'{{"text": "a", "n": {"[{" * 60}{"}]" * 60}}}', '{"text": "' + "[{" * 300 + '"}'),
    *("[1]", "null", "5", '"text"', "{}", "", " ", "\r", "\x0b", "\x0c ", '{"text": "a"}\x0b', ' \t{"text": "a"} \r'),
    *('{"text": "a"} {"text": "b"}', '{"text": "a",}', '{"text": "a\tb"}', '{"text": "\x7f"}', "{'text': 'a'}"),
    *('{"text": "\\u0000"}', '{"text": "a\x00"}', '{"text": 01}', '{"text": "a", "n": -0}', '{"text": "a", "n": .5}'),
    *('{"text": "a" /* b */}', '{"text": "\\x"}', '{"Text": "a"}', '{"text": true}', '{"text": ["a"]}', "tru"),
]


def by_the_strict_parser(content: bytes) -> list[str | BadEntry]:
    """As files were read before there was a fast parser."""
    found: list[str | BadEntry] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        where = f"a.jsonl, line {number}"
        if not line.strip():
            continue
        try:
            values = parse_object(line, where, keep_surrogates=True)
            text = values["text"]
            assert isinstance(text, str)
            text.encode()
            found.append(text)
        except KeyError:
            there = ", ".join(values) or "none"
            found.append(BadEntry(number, f"{where}: no key 'text', only {there}; see --json-keys"))
        except AssertionError:
            kind = kind_of(text)
            found.append(BadEntry(number, f"{where}: 'text' is {kind}, expected a text; an empty one is allowed"))
        except UnicodeEncodeError as error:
            found.append(BadEntry(number, f"{where}: 'text' has half of a surrogate pair ({error}); remove it"))
        except TrainyardError as error:
            found.append(
                BadEntry(
                    number,
                    f'{error}; expected an object such as {{"text": "..."}} on a line of its own, or an array of them '
                    "in the whole file: correct or remove it",
                )
            )
    return found


def by_blocks(content: bytes) -> list[str | BadEntry]:
    count = content.count(b"\n") + 1
    documents = documents_of(Block("lines", content, "a.jsonl", "line", 1, count, {}, 0), ["text"])
    good: dict[int, str | BadEntry] = dict(zip(documents.numbers, documents.texts[0], strict=True))
    found = {**good, **{each.number: each for each in documents.bad}}
    assert documents.text_bytes == sum(len(text.encode()) for text in documents.texts[0])
    return [found[number] for number in sorted(found)]


def plain(found: list[str | BadEntry]) -> list[Any]:
    """Quotes of other people's keys are cut, and made printable, which is not what is compared."""
    return [each if isinstance(each, str) else (each.number, each.reason.split(", only ")[0]) for each in found]


@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_by_itself_and_among_others(line: str) -> None:
    for content in (line.encode(), f"{GOOD}\n{line}\n\n{GOOD}".encode()):
        assert plain(by_blocks(content)) == plain(by_the_strict_parser(content))


@settings(max_examples=30 * TIMES, deadline=None)
@given(content=odd_text("\n".join([GOOD, *ODD[:12], GOOD])))
@example(content=b'{"text": "\xed\xa0\x80"}')
@example(content=b'{"text": "\xff"}')
def test_odd_lines_are_taken_and_refused_as_before(content: bytes) -> None:
    assert plain(by_blocks(content)) == plain(by_the_strict_parser(content))


@settings(max_examples=20 * TIMES, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=[])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    ascii_alone=st.booleans(),
)
def test_any_value_in_any_place(value: Any, ascii_alone: bool) -> None:
    written = [json.dumps({"text": value, "n": value}), json.dumps({"n": value, "text": "a"}), json.dumps(value)]
    content = "\n".join(written).encode("utf-8", "surrogatepass")
    assert plain(by_blocks(content)) == plain(by_the_strict_parser(content))


def test_several_keys_in_the_order_asked() -> None:
    content = f'{GOOD}\n{{"o": "3", "text": "4"}}\n'.encode()
    block = Block("lines", content, "a.jsonl", "line", 7, 2, {}, 0)
    assert documents_of(block, ["o", "text"]).texts == [["two", "3"], ["one", "4"]]
    odd = block._replace(content=content + b'{"o": "3"}\n', entries=3)
    documents = documents_of(odd, ["o", "text"])
    assert documents.texts == [["two", "3"], ["one", "4"]] and [each.number for each in documents.bad] == [9]
    assert documents_of(odd._replace(content=b"5"), ["o", "text"]).texts == [[], []]
    entries, bad = entries_of(odd, ["o", "text"])
    assert [entry.where for entry in entries] == ["a.jsonl, line 7", "a.jsonl, line 8"]
    assert bad[0].reason == "a.jsonl, line 9: no key 'text', only o; see --json-keys"
