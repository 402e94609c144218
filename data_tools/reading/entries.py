"""Blocks to documents and entries: a fast parser first, the strict one for what that refuses."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import filterfalse
from operator import itemgetter
from typing import Any, NamedTuple

from data_tools.reading.block import BadEntry, Block, Part
from data_tools.reading.documents import LARGEST_DOCUMENT, not_utf8, too_long
from data_tools.reading.rows import columns_of, texts_of_column
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.json_text import DEEPEST, is_deeper, parse_object
from megatron_patches.foreign.printable import shortened

_CONTAINERS = frozenset((list, dict))
_LEAST_DEEP = 2 * DEEPEST
"""bytes of the shortest line that is nested too deeply"""


class Documents(NamedTuple):
    """The documents of a block, in order; an empty text is a document too."""

    texts: list[list[str]]
    """of each key, the text of each document: [keys][documents]"""
    numbers: Sequence[int]
    """of each document, the number of its entry in the part; see `where_of`"""
    bad: list[BadEntry]
    """entries that are no documents, in order"""
    text_bytes: int
    """of all texts in UTF-8"""


class Entry(NamedTuple):
    """One JSON object, or one row, as it stands in its file."""

    values: dict[str, Any]
    number: int
    where: str
    """File and line (or element, or row), from 1, for errors."""


def where_of(block: Block, number: int) -> str:
    """How errors call an entry of the block: `FILE, line 3`; a file of one text is called by its name alone."""
    return block.origin if block.form == "text" else f"{block.origin}, {block.unit} {number}"


def documents_of(
    block: Block, keys: Sequence[str], largest: int = LARGEST_DOCUMENT, option: str = "--json-keys"
) -> Documents:
    """The texts of a block.

    Args:
        keys: of the texts; one text (form "text") is the same whatever its key.
        largest: bytes of the longest document; the same as the part was given.
        option: where the keys were asked for, for messages.
    """
    if block.form == "text":
        return _one_text(block, largest)
    texts = _texts_of_lines(block, keys, largest) if block.form == "lines" else _texts_of_rows(block, keys, largest)
    if texts is None:
        return _one_by_one(block, keys, largest, option)
    numbers = range(block.first, block.first + block.entries)
    return Documents(texts, numbers, [], sum(map(_bytes_of_all, texts)))


def read_documents(part: Part, json_keys: Sequence[str], largest: int = LARGEST_DOCUMENT) -> Iterator[tuple[str, ...]]:
    """The texts of each key, document by document.

    Args:
        json_keys, largest: those that the part was given.

    Raises:
        Damaged: the part is cut off, or not of its format.
        TrainyardError: an entry is no document; names file and line (or element, or row), from 1.
    """
    for block in part.blocks():
        documents = documents_of(block, json_keys, largest)
        first_bad = documents.bad[0] if documents.bad else None
        for number, texts in zip(documents.numbers, zip(*documents.texts, strict=True), strict=True):
            if first_bad is not None and number > first_bad.number:
                break
            yield texts
        if first_bad is not None:
            raise TrainyardError(first_bad.reason)


def entries_of(
    block: Block, keys: Sequence[str], largest: int = LARGEST_DOCUMENT, option: str = "--json-keys"
) -> tuple[list[Entry], list[BadEntry]]:
    """The objects or rows of a block (of lines or rows), each of which has the keys; and what is none."""
    entries, bad = list[Entry](), list[BadEntry]()
    for number, read in _objects_of_lines(block, keys, largest) if block.form == "lines" else _rows_of(block):
        where = where_of(block, number)
        try:
            values = read(where)
            if missing := [key for key in keys if key not in values]:
                there = shortened(", ".join(values) or "none")
                raise TrainyardError(f"{where}: no key '{shortened(missing[0])}', only {there}; see {option}")
            entries.append(Entry(values, number, where))
        except TrainyardError as error:
            bad.append(BadEntry(number, str(error)))
    return entries, bad


def text_of(entry: Entry, key: str) -> str:
    """What an entry has under a key that it has.

    Raises:
        TrainyardError: it is no text.
    """
    text = entry.values[key]
    if not isinstance(text, str):
        raise TrainyardError(
            f"{entry.where}: {key!r} is {type(text).__name__}, expected a text; an empty one is allowed"
        )
    return text


def checked_bytes(where: str, texts: Iterable[tuple[str, str]], largest: int) -> int:
    """Bytes of an entry's texts in UTF-8.

    Args:
        texts: each after its name, for errors.

    Raises:
        TrainyardError: there are too many of them, or a text cannot be written.
    """
    size = 0
    for name, text in texts:
        try:
            size += len(text.encode())
        except UnicodeEncodeError as error:  # JSON can spell it, but no tokenizer can read it
            raise TrainyardError(f"{where}: {name} has half of a surrogate pair ({error}); remove it") from None
    if size > largest:
        raise too_long(where, largest)
    return size


def _bytes_of_all(texts: Sequence[str]) -> int:
    return sum(map(len, texts)) + sum(len(text.encode()) - len(text) for text in filterfalse(str.isascii, texts))


def _one_text(block: Block, largest: int) -> Documents:
    if len(block.content) > largest:
        return Documents([[]], [], [BadEntry(1, str(too_long(block.origin, largest)))], 0)
    try:
        return Documents([[block.content.decode()]], [1], [], len(block.content))
    except UnicodeDecodeError as error:
        return Documents([[]], [], [BadEntry(1, str(not_utf8(block.origin, error)))], 0)


def _one_by_one(block: Block, keys: Sequence[str], largest: int, option: str) -> Documents:
    """Where an entry is odd."""
    entries, bad = entries_of(block, keys, largest, option)
    found, numbers, size = list[list[str]](), list[int](), 0
    for entry in entries:
        try:
            texts = [text_of(entry, key) for key in keys]
            size += checked_bytes(entry.where, zip(map(repr, keys), texts, strict=True), largest)
            found.append(texts)
            numbers.append(entry.number)
        except TrainyardError as error:
            bad.append(BadEntry(entry.number, str(error)))
    of_keys = [list(texts) for texts in zip(*found, strict=True)] or [[] for _ in keys]
    return Documents(of_keys, numbers, sorted(bad), size)


def _texts_of_lines(block: Block, keys: Sequence[str], largest: int) -> list[list[str]] | None:
    """The texts of each key where every line is a document; None where one is odd, or blank."""
    import orjson

    loads, get, found = orjson.loads, itemgetter(*keys), list[Any]()
    shortest = min(_LEAST_DEEP, largest)
    try:
        for line in BytesIO(block.content):  # which finds line ends four times as fast as split
            values = loads(line)
            found.append(get(values))
            if len(line) > shortest and (len(line) > largest or _is_deep(values)):
                return None
    except (ValueError, LookupError, TypeError):
        return None
    texts = [found] if len(keys) == 1 else list(map(list, zip(*found, strict=True)))
    return texts if all(set(map(type, each)) == {str} for each in texts) else None


def _is_deep(values: dict[str, Any]) -> bool:
    # flat objects are the rule, and seen as such in one call
    return not _CONTAINERS.isdisjoint(map(type, values.values())) and is_deeper(values, DEEPEST)


def _texts_of_rows(block: Block, keys: Sequence[str], largest: int) -> list[list[str]] | None:
    if len(block.content) > largest:
        return None
    columns = columns_of(block.content)
    found = [texts_of_column(columns[key]) for key in keys]
    texts = [each for each in found if each is not None]
    return texts if len(texts) == len(keys) else None


Read = Callable[[str], dict[str, Any]]
"""Gives an entry's values for where it stands, or raises TrainyardError."""


def _objects_of_lines(block: Block, keys: Sequence[str], largest: int) -> Iterator[tuple[int, Read]]:
    for number, line in enumerate(BytesIO(block.content), block.first):
        if not line.isspace():
            yield number, partial(_object, line, keys, largest)


def _object(line: bytes, keys: Sequence[str], largest: int, where: str) -> dict[str, Any]:
    import orjson

    if len(line) > largest:
        raise too_long(where, largest)
    try:
        values = orjson.loads(line)
    except ValueError:
        return _strictly(line, where)
    # floats: those of integers of more than 64 bits are told as what they are
    plain = isinstance(values, dict) and not any(type(values.get(key)) is float for key in keys)
    return values if plain and not _is_deep(values) else _strictly(line, where)


def _strictly(line: bytes, where: str) -> dict[str, Any]:
    try:
        return parse_object(line, where, keep_surrogates=True)
    except Damaged as error:
        raise TrainyardError(
            f'{error}; expected an object such as {{"text": "..."}} on a line of its own, or an array of them in the '
            "whole file: correct or remove it"
        ) from None


def _rows_of(block: Block) -> Iterator[tuple[int, Read]]:
    columns = columns_of(block.content)
    try:
        rows = list(zip(*(column.to_pylist() for column in columns.values()), strict=True))
    except UnicodeDecodeError:
        rows = None
    for number in range(block.entries):
        row = partial(_row, columns, number) if rows is None else partial(_named, list(columns), rows[number])
        yield block.first + number, row


def _named(names: Sequence[str], row: Sequence[Any], where: str) -> dict[str, Any]:
    return dict(zip(names, row, strict=True))


def _row(columns: Mapping[str, Any], number: int, where: str) -> dict[str, Any]:
    try:
        return {name: column[number].as_py() for name, column in columns.items()}
    except UnicodeDecodeError as error:
        raise not_utf8(where, error) from None
