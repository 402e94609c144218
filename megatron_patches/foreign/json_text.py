"""JSON that others wrote: every odd input ends in one named error."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from megatron_patches.errors import Damaged
from megatron_patches.foreign.printable import shortened

DEEPEST = 100
"""lists and objects within one another: what Python's parser takes, about 1,000, is too much for printing or copying"""
_CONTAINERS = frozenset((list, dict))
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")


def parse_json(text: bytes | str, origin: str, keep_surrogates: bool = False, keys_once: bool = False) -> Any:
    """The value that a text holds; a lone surrogate in a string, which no file can hold, becomes U+FFFD.

    Args:
        origin: where the text was read, for errors: a path, or `path:line`.
        keep_surrogates: leave them, for a caller that names what holds one.
        keys_once: refuse an object that has a key twice, of which the last would count; for what people write.

    Raises:
        Damaged: it is no JSON, is nested more than 100 deep, has an integer of more than 4,300 digits, or is not UTF-8.
    """
    try:
        content = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(content, object_pairs_hook=_keys_once if keys_once else None)
    except RecursionError:
        raise Damaged(f"{origin} is nested too deeply to be read") from None
    except UnicodeDecodeError as error:
        raise Damaged(f"{origin} is not UTF-8 text ({error.reason} at byte {error.start:,})") from None
    except ValueError as error:
        raise Damaged(f"{origin} is not JSON ({error})") from None
    # counting brackets, those in texts too, costs next to nothing, and what has few is not deep
    if content.count("[") + content.count("{") > DEEPEST and is_deeper(value, DEEPEST):
        raise Damaged(f"{origin} is nested too deeply to be read")
    return _without_lone_surrogates(value) if not keep_surrogates and _HALF_PAIR.search(content) else value


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key '{shortened(twice, 60)}' more than once")
    return found


def parse_object(text: bytes | str, origin: str, keep_surrogates: bool = False) -> dict[str, Any]:
    """The same where a JSON object must stand.

    Raises:
        Damaged: as `parse_json`, or it is a list, number, string, boolean or null.
    """
    value = parse_json(text, origin, keep_surrogates)
    if not isinstance(value, dict):
        raise Damaged(f"{origin} is not a JSON object but {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """What a value of JSON is called; one of another format by the name of its type."""
    return _KINDS.get(type(value), type(value).__name__)


def number_of(value: Any) -> float | None:
    """A JSON number that a double holds; None of anything else, such as true, 1e400 or an integer of 400 digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole_of(value: Any, below: int = 2**63) -> int | None:
    """A JSON integer from 0 up to a limit; None of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below else None


_KINDS: dict[type, str] = {
    list: "a list", dict: "an object", str: "a string", bool: "a boolean", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie within one another more than so many levels deep."""
    layer = [value] if type(value) in _CONTAINERS else []
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _inner(outer) if type(inner) in _CONTAINERS]
        if not layer:
            return False
    return any(layer)  # an empty one holds nothing that lies deeper


def _inner(outer: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return outer.values() if type(outer) is dict else outer


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_lone_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {_LONE.sub("\ufffd", key): _without_lone_surrogates(each) for key, each in value.items()}
    return value
