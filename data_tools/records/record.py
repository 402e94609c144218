"""Records with answers, as they stand in files: pairs of two texts, and chats, which are lists of messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data_tools.reading.block import BadEntry, Block
from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.entries import Entry, checked_bytes, entries_of, text_of
from data_tools.reading.files.sources import FoundParts, parts_of
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.json_text import kind_of
from megatron_patches.foreign.printable import shortened, storable

Role = Literal["system", "user", "assistant"]
TemplateName = Literal["plain", "tokenizer"]
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_CALLS = ("tool_calls", "function_call")
"""what a message may say beside its content; an answer without it would not be what was said"""


class Message(NamedTuple):
    """One message; those of the role `assistant` are answers."""

    role: Role
    content: str


class Record(NamedTuple):
    """One record; a pair is a question of the user and its answer."""

    messages: tuple[Message, ...]
    where: str
    """File and line (or element, or row), from 1, for errors."""
    text_bytes: int
    """Bytes of the contents in UTF-8."""

    @property
    def characters(self) -> int:
        """Characters of all contents."""
        return sum(len(message.content) for message in self.messages)


@dataclass(frozen=True)
class RecordForm:
    """Which records are read, and what is made of them.

    Raises:
        TrainyardError: the keys or options cannot be.
    """

    kind: Literal["pairs", "chat"]
    keys: tuple[str, ...]
    """Of a pair, those of its inputs and targets; of a chat, that of its messages."""
    template: TemplateName | None
    """What is written around messages; None: inputs and targets as they are, the separator between them."""
    separator: str = ""
    """What the answer begins with where there is no template."""

    def __post_init__(self) -> None:
        named = shortened(",".join(self.keys))
        if self.kind == "pairs" and (len(self.keys) != 2 or self.keys[0] == self.keys[1] or not all(self.keys)):
            raise TrainyardError(f"--pairs '{named}': give two different keys, such as --pairs inputs,targets")
        if self.kind == "chat" and (len(self.keys) != 1 or not self.keys[0]):
            raise TrainyardError("--chat names no key; give that of the messages, such as --chat messages")
        if any(storable(key) != key for key in (*self.keys, self.separator)):
            raise TrainyardError(f"keys '{named}': keys and separators are text in UTF-8; set your terminal to it")

    @property
    def label(self) -> str:
        """The keys, for manifests and messages."""
        return ",".join(self.keys)

    def parts_of(self, inputs: Sequence[Path], largest: int = LARGEST_DOCUMENT) -> FoundParts:
        """Files and folders of records, as `data_tools.reading.sources.parts_of` has them."""
        return parts_of(inputs, self.keys, largest, f"--{self.kind}", lambda block: self.records_of(block, largest)[1])

    def records_of(self, block: Block, largest: int = LARGEST_DOCUMENT) -> tuple[list[Record], list[BadEntry]]:
        """The records of a block, in order, and the entries that are not as the form says.

        Args:
            largest: bytes of the longest record; the same as the part was given.
        """
        entries, bad = entries_of(block, self.keys, largest, f"--{self.kind}")
        records = list[Record]()
        for entry in entries:
            try:
                messages = _pair(entry, *self.keys) if self.kind == "pairs" else _chat(entry, self.keys[0])
                texts = ((f"message {number}", each.content) for number, each in enumerate(messages, 1))
                records.append(Record(messages, entry.where, checked_bytes(entry.where, texts, largest)))
            except TrainyardError as error:
                bad.append(BadEntry(entry.number, str(error)))
        return records, sorted(bad)


def _pair(entry: Entry, inputs: str, targets: str) -> tuple[Message, ...]:
    question, answer = text_of(entry, inputs), text_of(entry, targets)
    if not answer.strip():
        raise TrainyardError(f"{entry.where}: {targets!r} is empty, expected an answer; correct or remove the record")
    return Message("user", question), Message("assistant", answer)


def _chat(entry: Entry, key: str) -> tuple[Message, ...]:
    given = entry.values[key]
    if not isinstance(given, list):
        raise TrainyardError(
            f"{entry.where}: {key!r} is {kind_of(given)}, expected a list of messages such as "
            '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
        )
    messages = tuple(_message(each, f"{entry.where}, message {number}") for number, each in enumerate(given, 1))
    if problem := _problem_of_order(messages):
        raise TrainyardError(f"{entry.where}{problem}; correct or remove the record")
    return messages


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, Mapping) or "role" not in given or "content" not in given:
        found = shortened(", ".join(map(str, given)) or "none") if isinstance(given, Mapping) else kind_of(given)
        raise TrainyardError(f'{where}: expected an object with "role" and "content", found {found}; correct it')
    role, content = given["role"], given["content"]
    if not isinstance(role, str) or role not in ROLES:
        raise TrainyardError(
            f"{where}: unknown role '{shortened(role)}', expected {', '.join(ROLES)}; rename it, or remove the record"
        )
    if not isinstance(content, str):
        raise TrainyardError(f"{where}: content is {kind_of(content)}, expected a text; correct it")
    if calls := [name for name in _CALLS if given.get(name)]:
        raise TrainyardError(f"{where} has {calls[0]}, which no template here writes; remove the record")
    return Message(ROLES[role], content)


def _problem_of_order(messages: Sequence[Message]) -> str | None:
    """What is wrong with the order of roles; begins with the place of the message at fault.

    Two messages of one role in a row are refused: joining them would invent what stands between them, and templates
    differ in what they would make of them (those of Llama 2 and Mistral refuse them too).
    """
    previous = None
    for number, (role, content) in enumerate(messages, 1):
        if role == "system" and number > 1:
            return f", message {number}: a message of the role system is not the first"
        if role == previous:
            return f", message {number}: two messages of the role {role} in a row"
        if role == "assistant" and not content.strip():
            return f", message {number}: an empty answer"
        previous = role
    return None if any(each.role == "assistant" for each in messages) else ": no answer (no message of role assistant)"
