"""One JSON array of a whole file, read element by element: memory holds one of them and what was read ahead."""

import io
import json
from collections.abc import Iterator

from data_tools.reading.documents import too_long
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.printable import shortened

CHARACTERS_READ_AT_ONCE = 1 << 20
_WHITESPACE = " \t\r\n"
_CLOSED = '{["'
"""what begins a value whose end shows; a number may go on behind what was read so far"""
_NEAR_THE_END = 16
"""characters: where what was read so far ends within an escape, a number or a word, the decoder stops this near"""


def array_elements(text: io.TextIOBase, origin: str, largest: int) -> Iterator[str]:
    """The elements of an array as they are written, of which the text is at the beginning; they should be objects.

    Args:
        origin: where it is read, for errors.
        largest: characters of the longest element.

    Raises:
        Damaged: the text ends within the array.
        TrainyardError: an element is longer than the limit, or is no JSON, so that nothing says where the next one
            begins; something follows the array.
    """
    reading = _Reading(text, origin, largest)
    reading.skip(_WHITESPACE)
    reading.position += 1  # the bracket
    while reading.skip(_WHITESPACE + ("," if reading.elements else "")) != "]":
        yield reading.take_element()
    reading.position += 1
    if rest := reading.rest():
        raise TrainyardError(f"{origin} goes on behind its array: '{shortened(rest[:40])}'; correct or remove it")


class _Reading:
    """A position in a text that is read as it is needed."""

    def __init__(self, text: io.TextIOBase, origin: str, largest: int) -> None:
        self.buffer = ""
        self.position = 0
        self.elements = 0
        self._text = text
        self._origin = origin
        self._largest = largest
        self._ended = False
        self._decoder = json.JSONDecoder()

    @property
    def where(self) -> str:
        return f"{self._origin}, element {self.elements + 1}"

    def read_more(self) -> bool:
        """Read as much again as is waiting, so that a long object is tried a few times only; False at the end."""
        waiting = self.buffer[self.position :]
        more = self._text.read(max(CHARACTERS_READ_AT_ONCE, len(waiting)))
        self._ended = not more
        self.buffer, self.position = waiting + more, 0
        return bool(self.buffer)

    def rest(self) -> str:
        """What follows but whitespace, as far as it is read; empty at the end."""
        while not (tail := self.buffer[self.position :].strip()):
            self.position = len(self.buffer)
            if not self.read_more():
                break
        return tail

    def skip(self, characters: str) -> str:
        """The next character that is none of these."""
        while True:
            while self.position < len(self.buffer):
                if self.buffer[self.position] not in characters:
                    return self.buffer[self.position]
                self.position += 1
            if not self.read_more():
                raise Damaged(f"{self._origin} ends within its array, behind element {self.elements}; copy it again")

    def take_element(self) -> str:
        """The element that begins here."""
        while True:
            begin = self.position
            try:
                _, end = self._decoder.raw_decode(self.buffer, begin)
                if self.buffer[begin] in _CLOSED or end < len(self.buffer) - _NEAR_THE_END or self._ended:
                    self.elements, self.position = self.elements + 1, end
                    return self.buffer[begin:end]
            except RecursionError:
                raise TrainyardError(f"{self.where} is nested too deeply to be read; correct or remove it") from None
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self.buffer) - _NEAR_THE_END
                if not cut:
                    raise TrainyardError(f"{self.where} is not JSON ({error.msg}); correct or remove it") from None
            except ValueError as error:  # an integer of thousands of digits
                raise TrainyardError(f"{self.where} is not JSON ({error}); correct or remove it") from None
            if len(self.buffer) - self.position > self._largest:
                raise too_long(self.where, self._largest)
            if not self._ended:
                self.read_more()
            else:
                raise Damaged(f"{self._origin} ends within element {self.elements + 1}; copy it again")
