"""The chat template that comes with a tokenizer: a Jinja program, run in Jinja's sandbox.

What it writes of control tokens becomes these tokens; what spells one in a message stays text. It is told the names of
the tokenizer's tokens (`bos_token`, `eos_token` ...) and no date: a dataset must not depend on the day.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_tools.records.record import Message
from data_tools.records.templates import Segment
from data_tools.text.control_tokens import named_tokens, read_config
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.printable import printable, shortened

LARGEST_TEMPLATE = 1 << 20
"""bytes; the longest in use have 20 kB"""
GROWTH = 1 << 20
"""characters that a rendering may have beside ten times those of its messages"""
MOST_MESSAGES = 4096
"""of one chat: as each answer is found by rendering what comes before it, time grows with the square of their number"""
_MARKS = [chr(code) for code in range(0xFDD2, 0xFDF0)]
"""characters that Unicode gives to no text, for a program's own use (the tokenizer's secret names have U+FDD0)"""


class TemplateText(NamedTuple):
    """A template as it stands in the tokenizer's folder."""

    text: str
    origin: str
    """Its file, for errors."""
    variables: tuple[tuple[str, str], ...]
    """Tokens by role, as the template may name them."""


def read_template(folder: Path) -> TemplateText:
    """Finds `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`; of several the one named default.

    Raises:
        Missing: there is none.
        TrainyardError: it is no text.
    """
    path = folder / "tokenizer_config.json"
    config = read_config(path) if is_file(path) else {}
    file = folder / "chat_template.jinja"
    given: Any
    if is_file(file):
        path, given = file, _decoded(file)
    else:
        given = config.get("chat_template")
    if isinstance(given, list):
        named = {each.get("name"): each.get("template") for each in given if isinstance(each, dict)}
        given = named.get("default")
    if not isinstance(given, str) or not given.strip():
        raise Missing(
            f"tokenizer {printable(folder)} has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); add one, or take --chat-template plain"
        )
    return TemplateText(given, printable(path), tuple(named_tokens(config).items()))


def _decoded(path: Path) -> str:
    try:
        return read_bounded(path, LARGEST_TEMPLATE).decode()
    except UnicodeDecodeError as error:
        raise TrainyardError(f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,})") from None


class TokenizerTemplate:
    """Segments of what the template writes.

    Where an answer lies is found by rendering: the messages before it, with the prompt for an answer, end where the
    answer begins; the messages up to it end where it ends. Each rendering must begin with the one before, else the
    template writes a message otherwise when others follow, and what a model sees in training is not what it sees in
    use. An answer ends with the last control token that the template writes after it, so that a model learns to stop;
    white space behind that is context.

    Args:
        append_eod: whether a record ends with the end-of-document token, as context where the template has not
            written it.

    Raises:
        TrainyardError: the text is no template.
    """

    def __init__(self, source: TemplateText, tokenizer: Tokenizer, append_eod: bool) -> None:
        self._source = source
        self._spellings = tokenizer.control_spellings
        self._ends = {text for text, number in tokenizer.control_tokens.items() if number == tokenizer.end_of_document}
        self._append_eod = append_eod
        self._control = _any_of(self._spellings)
        self._spelled_control = _any_of(self._spellings.values())
        try:
            self._template = _environment().from_string(source.text)
        except Exception as error:
            raise self._refusal(error, "is no template") from error

    @cached_property
    def sha256(self) -> str:
        """See `Template`; the names of the tokenizer's tokens are part of it."""
        named = json.dumps([self._source.text, self._source.variables], sort_keys=True)
        return hashlib.sha256(named.encode()).hexdigest()

    def segments(self, messages: Sequence[Message], where: str) -> list[Segment]:
        """See `Template`."""
        if len(messages) > MOST_MESSAGES:
            raise TrainyardError(
                f"{where} has {len(messages):,} messages; a tokenizer's template is given at most {MOST_MESSAGES:,}: "
                "divide the record, or take --chat-template plain"
            )
        hidden = _Hidden(messages, self._control, where)
        texts: list[str] = []
        written = context = ""
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._render(hidden, number, where, prompt=True)
            after = self._render(hidden, number + 1, where)
            self._must_go_on(written, before, where)
            self._must_go_on(before, after, where)
            answer, behind = self._answer(after[len(before) :], where)
            texts += [context + before[len(written) :], answer]
            written, context = after, behind
        whole = self._render(hidden, len(messages), where)
        self._must_go_on(written, whole, where)
        texts.append(context + whole[len(written) :])
        ended = self._append_eod and not any("".join(texts).endswith(end) for end in self._ends)
        if not texts[-1] and not ended:
            texts.pop()
        segments = []
        for number, text in enumerate(self._spelled(each, hidden) for each in texts):
            found = len(self._spelled_control.findall(text)) if number % 2 else None
            segments.append(Segment(text, control_tokens=found))
        return [*segments[:-1], segments[-1]._replace(ended=ended)]

    def _render(self, hidden: "_Hidden", count: int, where: str, prompt: bool = False) -> str:
        """What the template writes of the first `count` messages."""
        messages = hidden.messages[:count]
        limit = GROWTH + 10 * sum(len(each["content"]) for each in messages)
        pieces: list[str] = []
        written = 0
        try:
            stream = self._template.generate(
                messages=messages,
                add_generation_prompt=prompt,
                tools=None,
                documents=None,
                **dict(self._source.variables),
            )
            for piece in stream:
                pieces.append(piece)
                written += len(piece)
                if written > limit:
                    raise TrainyardError(f"{where}: {self._named} writes more than {limit:,} characters; correct it")
        except TrainyardError:
            raise
        except Exception as error:
            raise self._refusal(error, f"cannot write the first {count:,} of its messages", f"{where}: ") from error
        return "".join(pieces)

    def _answer(self, text: str, where: str) -> tuple[str, str]:
        """What a model is to write of a rendered answer, and the white space that follows it."""
        ends = [found.end() for found in self._control.finditer(text)]
        if not ends or text[ends[-1] :].strip():
            raise TrainyardError(
                f"{where}: {self._named} ends an answer with '{shortened(text[-40:])}' and no control token, so that "
                "a model would not learn to stop; let it write {{ eos_token }} behind each answer, or take "
                "--chat-template plain"
            )
        return text[: ends[-1]], text[ends[-1] :]

    def _must_go_on(self, before: str, after: str, where: str) -> None:
        if not after.startswith(before):
            same = next(
                (at for at, (one, two) in enumerate(zip(before, after, strict=False)) if one != two), len(after)
            )
            raise TrainyardError(
                f"{where}: {self._named} writes messages otherwise when others follow: "
                f"'{shortened(before[same:][:60])}' becomes '{shortened(after[same:][:60])}', so that answers have no "
                "one text; take another template, or --chat-template plain"
            )

    def _spelled(self, text: str, hidden: "_Hidden") -> str:
        """The text for the tokenizer, which finds control tokens by their spellings alone."""
        return hidden.restored(self._control.sub(lambda found: self._spellings[found[0]], text))

    @property
    def _named(self) -> str:
        return f"the chat template of {self._source.origin}"

    def _refusal(self, error: Exception, what: str, place: str = "") -> TrainyardError:
        """Of whatever a template raises: it is a program of others, and may fail in any way."""
        return TrainyardError(
            f"{place}{self._named} {what} ({type(error).__name__}: {shortened(error)}); correct the template or the "
            "record, or take --chat-template plain"
        )


class _Hidden:
    """Messages in which what spells a control token is put out of the template's sight."""

    def __init__(self, messages: Sequence[Message], control: re.Pattern[str], where: str) -> None:
        everything = "".join(message.content for message in messages)
        mark = next((mark for mark in _MARKS if mark not in everything), None)
        if mark is None:
            raise TrainyardError(f"{where} has all characters that Unicode keeps from texts; remove the record")
        self._found: list[str] = []
        self._pattern = re.compile(f"{mark}([0-9]+){mark}")
        self.messages = [
            {"role": message.role, "content": control.sub(lambda found: self._hide(found[0], mark), message.content)}
            for message in messages
        ]

    def _hide(self, token: str, mark: str) -> str:
        self._found.append(token)
        return f"{mark}{len(self._found) - 1}{mark}"

    def restored(self, text: str) -> str:
        """The text with what was hidden."""
        return self._pattern.sub(lambda found: self._found[int(found[1])], text) if self._found else text


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds tokens, the longer where one begins another; nothing where there are none."""
    return re.compile("|".join(re.escape(each) for each in sorted(tokens, key=len, reverse=True)) or r"(?!)")


class _Generation(Extension):
    """`{% generation %}`, by which some templates mark answers; they are found without it."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own name

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> Environment:
    """Jinja as transformers sets it up for chat templates (5.x, utils/chat_template_utils.py), without the date."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)
