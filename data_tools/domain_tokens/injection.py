"""Texts to token ids with tokens of the multiplication table put in as ids.

The text around an expression is encoded by the tokenizer as it stands, piece by piece, and the id of the token stands
between two pieces. So white space before and behind an expression stays what it is: of `is 3*4 now` the pieces are
`is `, the token, and ` now`. A byte-level BPE, which joins a space to the word behind it, then has the space before a
token as an id of its own; the tokenizers library does the same at an added token. A text without expressions is one
piece, and gets the ids that it has without injection.

What an expression looked like is not kept: the order of its operands, its sign, its spaces, and whether its product was
stated. All else decodes as it was.

A control token, which only a chat template writes, is no part of an expression: the text before it ends there, and the
text behind it begins.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_tools.domain_tokens.expressions import WrongProduct, find_expressions
from data_tools.domain_tokens.multiplication import SPELLING, Mode, multiplication_tokens
from data_tools.domain_tokens.report import TextCounts
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable

_EXTEND = "make a tokenizer with them: tools/tokenizer extend TOKENIZER --output FOLDER --multiplication"
_PROBES = ("is ", " now", "a", "\n", " 1,")
"""pieces of text as they stand around expressions"""


@dataclass(frozen=True)
class Injection:
    """A `TextEncoder` that puts tokens of the multiplication table into texts, and notes `TextCounts` of each."""

    mode: Mode
    ids: Mapping[str, int]
    """Ids of all the tokens."""

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], list[TextCounts]]:
        """Ids of each text, and what was put into it."""
        control = _any_of(tokenizer.control_spellings.values())
        counts: list[TextCounts] = []
        pieces: list[str] = []
        plans: list[list[str | None]] = []
        for text in texts:
            plan, around, counted = self._cut(text, control)
            plans.append(plan)
            pieces += around
            counts.append(counted)
        encoded = iter(tokenizer.encode_batch(pieces))
        documents = []
        for plan in plans:
            document: list[int] = []
            for token in plan:
                document += next(encoded) if token is None else [self.ids[token]]
            documents.append(document)
        return documents, counts

    def _cut(self, text: str, control: re.Pattern[str]) -> tuple[list[str | None], list[str], TextCounts]:
        """Tokens in their order, with None for each piece of text between them; these pieces; and the counts."""
        plan: list[str | None] = []
        pieces: list[str] = []
        bare: list[str] = []
        with_product: list[str] = []
        position = left_alone = 0
        for offset, part in _between(text, control):
            for found in find_expressions(part, self.mode):
                if isinstance(found, WrongProduct):
                    left_alone += 1
                    continue
                if offset + found.start > position:
                    pieces.append(text[position : offset + found.start])
                    plan.append(None)
                plan.append(found.token)
                position = offset + found.end
                (with_product if found.stated else bare).append(found.token)
        if position < len(text) or not plan:  # an empty text is a piece too
            pieces.append(text[position:])
            plan.append(None)
        literal = sum(1 for _ in SPELLING.finditer(text)) if "<MUL_" in text else 0
        return plan, pieces, TextCounts(tuple(bare), tuple(with_product), left_alone, literal)


def _any_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Finds tokens, the longer where one begins another; nothing where there are none."""
    return re.compile("|".join(re.escape(each) for each in sorted(tokens, key=len, reverse=True)) or r"(?!)")


def _between(text: str, control: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """The text between control tokens, each part behind the place where it begins."""
    position = 0
    for found in control.finditer(text):
        yield position, text[position : found.start()]
        position = found.end()
    yield position, text[position:]


def injection_with(tokenizer: Tokenizer, mode: Mode) -> Injection:
    """Injection with the tokens of a tokenizer.

    Raises:
        TrainyardError: it lacks some of them, finds them in text, or encodes a piece of text by itself otherwise.
    """
    of_tokens = {token: number for number, token in tokenizer.tokens().items()}
    wanted = multiplication_tokens()
    if missing := [token for token in wanted if token not in of_tokens]:
        raise TrainyardError(
            f"tokenizer {printable(tokenizer.name)} lacks {len(missing)} of the {len(wanted)} tokens of the "
            f"multiplication table, such as {missing[0]}; {_EXTEND}"
        )
    ids = {token: of_tokens[token] for token in wanted}
    if found := [token for token, number in ids.items() if number in tokenizer.encode(f"is {token} now")]:
        raise TrainyardError(
            f"tokenizer {printable(tokenizer.name)} finds {found[0]} in text that spells it, so documents could name "
            f"tokens; {_EXTEND}, from one without these tokens"
        )
    one = ids[wanted[0]]
    for piece in _PROBES:
        if tokenizer.decode([one, *tokenizer.encode(piece), one]) != f"{wanted[0]}{piece}{wanted[0]}":
            raise TrainyardError(
                f"tokenizer {printable(tokenizer.name)} does not give {piece!r} back between two tokens, so text "
                "around them would change; take a byte-level BPE without add_prefix_space"
            )
    return Injection(mode, ids)
