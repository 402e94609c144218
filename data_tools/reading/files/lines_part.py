"""Files of JSON: objects on lines of their own, or one array of them in the whole file."""

import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import BinaryIO, NamedTuple

import numpy as np

from data_tools.reading.block import BEGINNING, Block, Position
from data_tools.reading.documents import BLOCK_BYTES, compression_of, not_utf8
from data_tools.reading.files.decompression import open_decompressed
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.json_array import array_objects
from data_tools.reading.files.stored_file import StoredFile

_LOOK_AHEAD_BYTES = 1 << 16


class _Lines(NamedTuple):
    content: bytes
    end: int
    """bytes of the stream up to here"""


class LinesPart(FilePart):
    """A file that is not compressed goes on at any line by a jump; a compressed one is unpacked again up to there.

    Positions are {"byte": of what is unpacked, "line": lines before it}, or {"element": elements before it}.
    """

    @property
    def origin_of_stretch(self) -> str:
        """How errors call what is read: lines of a stretch are counted from its beginning."""
        return f"{self.origin} from byte {self.stretch[0]:,} on" if self.stretch and self.stretch[0] else self.origin

    @cached_property
    def is_array(self) -> bool:
        """The first character says it: an object begins a line of its own, an array holds objects."""
        if self.stretch is not None:
            return False
        with open_decompressed(self.path) as (stream, _):
            ahead = stream.read(_LOOK_AHEAD_BYTES)
        return ahead.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        is_array = self.is_array
        with open_decompressed(self.path, hashed) as (stream, raw):
            yield from self._elements(stream, raw, after) if is_array else self._lines(stream, raw, after, hashed)
            if hashed:
                raw.read_on(None if self.stretch is None else self.stretch[1])
                self._content = raw.content()

    def _lines(self, stream: BinaryIO, raw: StoredFile, after: Position, hashed: bool) -> Iterator[Block]:
        begin, end = self.stretch or (0, None)
        place, line = _whole(after, "byte", begin), _whole(after, "line", 0)
        if stream is raw:
            raw.seek(begin if hashed else place)
            if self.path.stat().st_size < place:
                raise self.shorter_than(place, "byte")
        self._drop(stream, place - (raw.tell() if stream is raw else 0), place)
        for lines in _whole_lines(stream, place, end, self.largest):
            count = _line_ends(lines.content) + (not lines.content.endswith(b"\n"))
            position = {"byte": lines.end, "line": line + count}
            read = (lines.end if stream is raw else raw.tell()) - begin
            yield Block("lines", lines.content, self.origin_of_stretch, "line", line + 1, count, position, read)
            line += count

    def _drop(self, stream: BinaryIO, count: int, place: int) -> None:
        while count:
            data = stream.read(min(count, BLOCK_BYTES))
            if not data:
                raise self.shorter_than(place, "byte")
            count -= len(data)

    def _elements(self, stream: BinaryIO, raw: StoredFile, after: Position) -> Iterator[Block]:
        passed = _whole(after, "element", 0)
        number, pieces, size = 0, list[bytes](), 0
        for element in self._array(stream):
            number += 1
            if number <= passed:
                continue
            pieces.append(element.replace("\n", " ").encode() + b"\n")  # line ends stand between values alone
            size += len(pieces[-1])
            if size >= BLOCK_BYTES:
                yield self._block_of_elements(pieces, number, raw)
                pieces, size = [], 0
        if number < passed:
            raise self.shorter_than(passed, "element")
        if pieces:
            yield self._block_of_elements(pieces, number, raw)

    def _array(self, stream: BinaryIO) -> Iterator[str]:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig")
        try:
            yield from array_objects(text, self.origin, self.largest)
        except UnicodeDecodeError as error:
            raise not_utf8(self.origin, error) from None
        finally:
            text.detach()  # which else closes the stream

    def _block_of_elements(self, pieces: list[bytes], number: int, raw: StoredFile) -> Block:
        first = number - len(pieces) + 1
        position = {"element": number}
        return Block("lines", b"".join(pieces), self.origin, "element", first, len(pieces), position, raw.tell())

    def cut_places(self, after: Sequence[int]) -> Sequence[int] | None:
        if compression_of(self.path.name) or self.is_array:
            return None
        with open_decompressed(self.path) as (_, raw):
            return [_line_start(raw, place, self.size) for place in after]


def _whole(position: Position, name: str, otherwise: int) -> int:
    value = position.get(name, otherwise)
    assert isinstance(value, int)
    return value


def _whole_lines(stream: BinaryIO, place: int, end: int | None, largest: int) -> Iterator[_Lines]:
    """Blocks of whole lines; of a line beyond the limit, one byte more than the limit is kept for who reads it.

    Args:
        place: byte of the stream that is read first.
        end: byte up to which is read; None: to the end.
    """
    buffer, held = bytearray(2 * BLOCK_BYTES), 0  # held: bytes of a line that has not ended yet
    while True:
        if held + BLOCK_BYTES > len(buffer):
            buffer += bytes(len(buffer))
        into = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - place)
        with memoryview(buffer) as view:
            count = stream.readinto(view[held : held + into])  # type: ignore[attr-defined]
            place += count
            cut = buffer.rfind(b"\n", held, held + count) + 1
            if not count:
                break
            held += count - cut
            if cut:
                yield _Lines(bytes(view[:cut]), place - held)
                view[:held] = view[cut : cut + held]
            held = min(held, largest + 1)
    if held:
        yield _Lines(bytes(buffer[:held]), place)


def _line_ends(content: bytes) -> int:
    # in 3.11 twice as fast as bytes.count
    return int(np.count_nonzero(np.frombuffer(content, np.uint8) == ord("\n")))


def _line_start(raw: StoredFile, place: int, size: int) -> int:
    """Where the first line begins that begins at a byte or after it; the file's end where there is none."""
    if not 0 < place < size:
        return min(place, size)
    place -= 1  # a line that ends there begins at the byte itself
    raw.seek(place)
    while data := raw.read(_LOOK_AHEAD_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(data)
    return size
