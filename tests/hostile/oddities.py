"""Strategies: right content, damaged at random, as JSON, as bytes, and as what stands where a file is expected."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.hostile.canary import Place

_RAW = "raw text {}"
# What json.dumps cannot write: it stands in for these.
RAW_VALUES = [
    "NaN",
    "1e999",
    "-Infinity",
    "1" * 5000,
    "[" * 5000 + "]" * 5000,
    '{"a":' * 3000 + "1" + "}" * 3000,
    '"\\ud800"',
    '"\\u0000"',
    "1.0",
    "0.5",
    '{"a": 1, "a": 2}',
]
ODD_TEXTS = [
    *("", " ", ".", "..", "/", "-x", "--help", "a//b", "./a", "a/../b", "a/", "../../outside/secret", "/etc/hostname"),
    *("a\0b", "a\nb", "a\r\n", "\x1b]52;c;ZXZpbA==\x07", "\u202egpj", "a\u2028b", "\x9b2J", "é", "e\u0301", "漢字"),
    *(
        "x" * 300,
        "x" * 100_000,
        "[bold]a[/bold]",
        "[/]",
        "<script>",
        "|",
        "`",
        "%s",
        "{}",
        "{run}",
        "${HOME}",
        "~",
        "NaN",
    ),
    *("٣", "1_000", "0x10", "1e3", "٣@5", "a@b", "step-٣", "con", "\\", "a\\b", "file:///", "s3://k:s@b"),
]
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, 10**30, -(10**30), 0.1, -0.0, 1e308),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, list(range(1000))),
    *ODD_TEXTS,
    *(_RAW.format(number) for number in range(len(RAW_VALUES))),
]


@st.composite
def odd_json(draw: DrawFn, valid: Any) -> bytes:
    """The text of a JSON value of which one to three nodes were replaced, removed, repeated or renamed."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    text = json.dumps(value)
    for number, raw in enumerate(RAW_VALUES):
        text = text.replace(json.dumps(_RAW.format(number)), raw)
    return text.encode()


def _change(draw: DrawFn, value: Any) -> Any:
    ways = list(_ways(value))
    way = draw(st.sampled_from(ways))
    odd = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    if not way:
        return odd
    holder = value
    for key in way[:-1]:
        holder = holder[key]
    last = way[-1]
    action = draw(st.sampled_from(("replace", "replace", "remove", "repeat", "rename")))
    if action == "replace":
        holder[last] = odd
    elif action == "remove":
        del holder[last]
    elif isinstance(holder, list):
        holder.insert(draw(st.integers(0, len(holder))), copy.deepcopy(holder[last]))
    else:
        holder[draw(st.sampled_from(ODD_TEXTS))] = holder[last] if action == "repeat" else holder.pop(last)
    return value


def _ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _ways(each, (*way, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _ways(each, (*way, number))


_ODD_INTEGERS = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@st.composite
def odd_bytes(draw: DrawFn, valid: bytes) -> bytes:
    """Bytes cut, changed, lengthened, or with an odd little-endian number of 1, 4 or 8 bytes somewhere in them."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        action = draw(st.sampled_from(("cut", "flip", "number", "number", "insert", "zeros", "double", "random")))
        if action == "cut":
            del content[at:]
        elif action == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "number":
            width = draw(st.sampled_from((1, 4, 8)))
            number = draw(st.sampled_from(_ODD_INTEGERS)) % (1 << 8 * width)
            content[at : at + width] = number.to_bytes(width, "little")
        elif action == "insert":
            content[at:at] = draw(st.binary(max_size=40))
        elif action == "zeros":
            content[at:at] = bytes(draw(st.sampled_from((1, 8, 4096))))
        elif action == "double":
            content += bytes(content)
        elif action == "random":
            content[at:] = draw(st.binary(max_size=200))
    return bytes(content)


@st.composite
def odd_text(draw: DrawFn, valid: str) -> bytes:
    """Text of lines of which some were replaced, repeated, joined, or have odd text inside; or odd bytes of it."""
    if draw(st.booleans()):
        return draw(odd_bytes(valid.encode()))
    lines = valid.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        odd = draw(st.sampled_from([*ODD_TEXTS, *RAW_VALUES]))
        cut = draw(st.integers(0, len(lines[at])))
        lines[at] = draw(st.sampled_from((odd + "\n", lines[at][:cut] + odd + lines[at][cut:], lines[at] * 2, odd)))
    return "".join(lines).encode(errors="surrogatepass")


def odd_entries(huge: bool = True) -> SearchStrategy[Callable[[Place, Path], None]]:
    """Puts something else where a file or folder is: a folder, a pipe, links of all kinds, a device, a file.

    Args:
        huge: also a file of 1 TiB, which takes no space: not where reading the whole of it is what was asked for.
    """
    return st.sampled_from([each for each in _ENTRIES if huge or each is not _huge])


def _gone(place: Place, path: Path) -> None:
    place.clear(path)


def _folder(place: Place, path: Path) -> None:
    place.clear(path)
    path.mkdir()


def _empty_file(place: Place, path: Path) -> None:
    place.clear(path)
    path.touch()


def _pipe(place: Place, path: Path) -> None:
    place.clear(path)
    os.mkfifo(path)


def _link_to(*parts: str) -> Callable[[Place, Path], None]:
    def put(place: Place, path: Path) -> None:
        place.clear(path)
        path.symlink_to(place.outside.joinpath(*parts))

    return put


def _round(place: Place, path: Path) -> None:
    place.clear(path)
    path.symlink_to(path.name)


def _device(place: Place, path: Path) -> None:
    place.clear(path)
    path.symlink_to("/dev/zero")


def _huge(place: Place, path: Path) -> None:
    place.clear(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)


_ENTRIES = [
    *(_gone, _folder, _empty_file, _pipe, _round, _device, _huge),
    *(_link_to("secret"), _link_to("victim"), _link_to("nothing"), _link_to("..", "inside")),
]
