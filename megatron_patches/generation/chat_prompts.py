"""The token ids that a reply follows in a chat: those that answers follow in datasets of chats."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import Message, Record, RecordForm, TemplateName
from data_tools.records.templates import PLAIN
from data_tools.records.tokenizer_template import read_template
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import Missing

_ANSWER = Message("assistant", "a")


class ChatPrompts:
    """Chats by the tokenizer's own template where it has one, else by the plain one of `tools/preprocess --chat`.

    Args:
        folder: of the tokenizer's files.

    Raises:
        TrainyardError: the template is damaged, or the tokenizer has no token with which an answer could end.
    """

    def __init__(self, tokenizer: Tokenizer, folder: Path) -> None:
        self._tokenizer = tokenizer
        template = _template_of(folder)
        self._encoding = RecordEncoding.of(RecordForm("chat", ("messages",), template), folder, append_eod=False)
        self._encoding.check(tokenizer)
        _, ending = self._encode([Message("user", "a")])
        self.ends = frozenset({ending})
        """ids with which answers end"""
        self.stops = (PLAIN["between"] + PLAIN["user"],) if template == "plain" else ()
        """strings that begin the next question, which a model may write that has not learned to stop"""

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """What a reply to the last of these messages, a question, follows.

        Raises:
            TrainyardError: the template cannot write them.
        """
        return self._encode(messages)[0]

    def fitting(self, messages: Sequence[Message], room: int) -> tuple[list[Message], list[int]]:
        """The latest messages whose ids are no more than `room`, and these ids; the oldest exchanges are left out.

        A system message stays, and so does the last question: where these alone are longer, so are the ids.
        """
        kept = list(messages)
        first = 1 if kept[0].role == "system" else 0
        while len(ids := self.ids(kept)) > room and len(kept) > first + 1:
            del kept[first : first + 2]
        return kept, ids

    def _encode(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Ids up to an answer that follows the messages, and the id with which it ends."""
        record = Record((*messages, _ANSWER), "the chat", 0)
        (encoded,) = self._encoding(self._tokenizer, [record])
        # contexts and answers take turns; a template may write white space after the last answer
        answer = (len(encoded.lengths) // 2) * 2 - 1
        begin, end = int(encoded.lengths[:answer].sum()), int(encoded.lengths[: answer + 1].sum())
        return encoded.tokens[:begin].tolist(), int(encoded.tokens[end - 1])


def _template_of(folder: Path) -> TemplateName:
    try:
        read_template(folder)
    except Missing:
        return "plain"
    return "tokenizer"
