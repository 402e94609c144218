"""What is written around the messages of a record, and where answers begin and end in it."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from data_tools.records.record import Message

PLAIN = {"system": "System: ", "user": "User: ", "assistant": "Assistant:", "answer": " ", "between": "\n\n"}
"""what the plain template writes: in front of a message of each role, in front of an answer's text, between messages"""


class Segment(NamedTuple):
    """A stretch of a record's text that becomes one sequence of tokens."""

    text: str
    ended: bool = False
    """Whether the end-of-document token follows the text in the same sequence."""
    control_tokens: int | None = None
    """Of an answer that ends with a control token of a template: how many it has. What follows is encoded together with
    it, since such a token may take the white space behind it, and cut off behind the last of them; None: encoded by
    itself.
    """


class Template(Protocol):
    """Makes text of messages."""

    @property
    def sha256(self) -> str:
        """Of what the template writes: two templates of one hash write the same."""

    def segments(self, messages: Sequence[Message], where: str) -> list[Segment]:
        """The record's text: context and answer in turn, context first, which may be empty.

        Args:
            where: the record's place, for errors.

        Raises:
            TrainyardError: the template cannot write these messages.
        """


class BarePair:
    """Inputs, then targets as the answer, which begins with the separator.

    So the inputs alone are the prompt, and where the separator is a space the answer's first word has the token that
    it has within a text.
    """

    def __init__(self, separator: str) -> None:
        self._separator = separator

    @property
    def sha256(self) -> str:
        """See `Template`."""
        return hashlib.sha256(self._separator.encode()).hexdigest()

    def segments(self, messages: Sequence[Message], where: str) -> list[Segment]:
        """See `Template`."""
        inputs, targets = messages
        return [Segment(inputs.content), Segment(self._separator + targets.content, ended=True)]


class PlainTemplate:
    """`User: ...`, an empty line, `Assistant:` as context; a space and the answer's text as the answer.

    The prompt ends with the colon: with the space, which most tokenizers join to the word that follows, the answer's
    first token would be another than in a text. Every answer ends with the end-of-document token, so that a model
    learns to stop there; so does a chat that ends with a question.
    """

    @property
    def sha256(self) -> str:
        """See `Template`."""
        return hashlib.sha256(json.dumps(PLAIN, sort_keys=True).encode()).hexdigest()

    def segments(self, messages: Sequence[Message], where: str) -> list[Segment]:
        """See `Template`."""
        segments: list[Segment] = []
        context = ""
        for number, message in enumerate(messages):
            context += (PLAIN["between"] if number else "") + PLAIN[message.role]
            if message.role == "assistant":
                segments += [Segment(context), Segment(PLAIN["answer"] + message.content, ended=True)]
                context = ""
            else:
                context += message.content
        return [*segments, Segment(context, ended=True)] if context else segments
