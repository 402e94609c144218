"""Records to sequences of token ids: context and answer in turn.

An answer is encoded by itself. So no token holds the end of a context and the beginning of an answer, and the context
has the tokens that a prompt of the same text has when a model is used.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_tools.records.record import Record, RecordForm
from data_tools.records.templates import BarePair, PlainTemplate, Segment, Template
from data_tools.text.document_encoding import EncodedTexts, TextEncoder, encode_texts, ids_type
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError

if TYPE_CHECKING:  # a template needs Jinja, 0.1 s to import, and texts need none
    from data_tools.records.tokenizer_template import TemplateText

_SPACES = ("\u2581", "\u0120")
"""how SentencePiece and byte-level BPE write the space in front of a word"""


@dataclass(frozen=True)
class RecordEncoding:
    """How records become tokens; a process can be sent it.

    Args:
        source: the tokenizer's own template; None where another one is used.
        append_eod: of the tokenizer's own template alone: whether a record ends with the end-of-document token. Other
            answers always do.
        encoder: what makes ids of texts, none of them those of control tokens; None leaves it to the tokenizer. It is
            given what is encoded by itself: a context, or an answer, or an answer and the context that follows it,
            with the control tokens of the tokenizer's template in their spellings.
    """

    form: RecordForm
    source: "TemplateText | None"
    append_eod: bool
    encoder: TextEncoder | None = field(default=None, compare=False)  # which need not be hashable

    @classmethod
    def of(
        cls, form: RecordForm, folder: Path, append_eod: bool, encoder: TextEncoder | None = None
    ) -> "RecordEncoding":
        """Reads what is needed of the tokenizer's folder.

        Raises:
            TrainyardError: the template is not to be had.
        """
        from data_tools.records.tokenizer_template import read_template

        return cls(form, read_template(folder) if form.template == "tokenizer" else None, append_eod, encoder)

    def template(self, tokenizer: Tokenizer) -> Template:
        """What is written around messages.

        Raises:
            TrainyardError: the template is damaged.
        """
        if self.source is not None:
            from data_tools.records.tokenizer_template import TokenizerTemplate

            return TokenizerTemplate(self.source, tokenizer, self.append_eod)
        return PlainTemplate() if self.form.template == "plain" else BarePair(self.form.separator)

    def check(self, tokenizer: Tokenizer) -> None:
        """Raises TrainyardError where answers could not end, an option would do nothing, or the template is damaged."""
        if tokenizer.end_of_document is None and (self.source is None or self.append_eod):
            raise TrainyardError(
                f"tokenizer {tokenizer.name} has no end-of-document token, with which an answer must end, so that a "
                "model learns to stop; set eos_token in its tokenizer_config.json"
            )
        if self.source is None and self.append_eod:
            raise TrainyardError(
                "--append-eod would do nothing: the answers of pairs and of plain chats always end with the "
                "end-of-document token; leave it out"
            )
        if self.source is not None and not tokenizer.control_tokens:
            raise TrainyardError(
                f"tokenizer {tokenizer.name} has no control tokens that a chat template could write (they are those of "
                "a tokenizer.json); take --chat-template plain"
            )
        self.template(tokenizer)

    def __call__(self, tokenizer: Tokenizer, chunk: Sequence[Record]) -> list[EncodedTexts]:
        """Tokenizes a chunk of records: one entry, whose documents are the records.

        Raises:
            TrainyardError: the template cannot write a record, or an answer gives no token.
        """
        template = _template_of(self, tokenizer)
        records = [template.segments(record.messages, record.where) for record in chunk]
        puts_space = _puts_space(tokenizer)
        pieces = [list(_pieces(segments, puts_space)) for segments in records]
        ids_of_pieces, notes = encode_texts(tokenizer, [piece for each in pieces for piece in each], self.encoder)
        encoded, noted = iter(ids_of_pieces), iter(notes or ())
        ending = [] if tokenizer.end_of_document is None else [tokenizer.end_of_document]
        control = set(tokenizer.control_tokens.values())
        ids: list[int] = []
        lengths = []
        for record, segments, texts in zip(chunk, records, pieces, strict=True):
            sequences = _sequences(segments, [next(encoded) for _ in texts], control, record.where)
            for number, (segment, tokens) in enumerate(zip(segments, sequences, strict=True)):
                if number % 2 and not tokens:
                    raise TrainyardError(f"{record.where}: an answer gives no token; correct or remove the record")
                ids += tokens
                ids += ending if segment.ended else []
                lengths.append(len(tokens) + len(ending) * segment.ended)
        of_records = None if notes is None else [[next(noted) for _ in each] for each in pieces]
        of_each = np.fromiter(map(len, records), np.int64, len(records))
        given, none = np.array(ids, dtype=ids_type(tokenizer.vocab_size)), np.zeros(0, np.int64)
        return [EncodedTexts(given, np.array(lengths, dtype=np.int64), none, of_each, of_records)]


def _pieces(segments: Sequence[Segment], puts_space: bool) -> Iterator[str]:
    """The texts of a record that are encoded by themselves: those of one segment, or of an answer and what follows."""
    text = ""
    for number, segment in enumerate(segments):
        continues = number > 0 and segments[number - 1].control_tokens is not None
        if number and not continues:
            yield text
            text = ""
        text += segment.text.removeprefix(" ") if puts_space and number and not continues else segment.text
    yield text


def _sequences(
    segments: Sequence[Segment], pieces: Sequence[list[int]], control: Collection[int], where: str
) -> Iterator[list[int]]:
    """The tokens of each segment of a record, of those of its pieces."""
    encoded = iter(pieces)
    rest: list[int] | None = None
    for segment in segments:
        tokens = next(encoded) if rest is None else rest
        rest = None
        if segment.control_tokens is not None:
            ends = [place + 1 for place, token in enumerate(tokens) if token in control]
            if len(ends) < segment.control_tokens:
                raise TrainyardError(
                    f"{where}: the tokenizer does not find the control tokens that its chat template writes behind "
                    "texts (their flag single_word?); take --chat-template plain"
                )
            end = ends[segment.control_tokens - 1]
            tokens, rest = tokens[:end], tokens[end:]
        yield tokens


@lru_cache(maxsize=2)  # a fast tokenizer and its reference take turns
def _template_of(encoding: RecordEncoding, tokenizer: Tokenizer) -> Template:
    return encoding.template(tokenizer)


@lru_cache(maxsize=2)
def _puts_space(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer puts a space in front of what it is given, as many SentencePiece models do.

    Then the one that a sequence begins with is taken away where the sequence continues another: two would be written.
    """
    tokens = tokenizer.tokens()
    word = next((each[1:] for each in tokens.values() if each.startswith(_SPACES) and each[1:].isalpha()), None)
    return word is not None and tokens[tokenizer.encode(word)[0]].startswith(_SPACES)
