"""Texts to token ids with tokens of the multiplication table put in as ids.

The text around an expression is encoded by the tokenizer as it stands, piece by piece, and the id of the token stands
between two pieces. So white space before and behind an expression stays what it is: of `is 3*4 now` the pieces are
`is `, the token, and ` now`. A byte-level BPE, which joins a space to the word behind it, then has the space before a
token as an id of its own; the tokenizers library does the same at an added token. A text without expressions is one
piece, and gets the ids that it has without injection.

What an expression looked like is not kept: the order of its operands, its sign, its spaces, and whether its product was
stated. All else decodes as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_tools.domain_tokens.expressions import Mode, WrongProduct, find_expressions
from data_tools.domain_tokens.multiplication import SPELLING, multiplication_tokens
from data_tools.domain_tokens.report import InjectionCounts
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable

_EXTEND = "make a tokenizer with them: tools/tokenizer extend TOKENIZER --output FOLDER --multiplication"
_PROBES = ("is ", " now", "a", "\n", " 1,")
"""pieces of text as they stand around expressions"""


@dataclass(frozen=True)
class Injection:
    """A `TextEncoder` that puts tokens of the multiplication table into texts, and notes `InjectionCounts`."""

    mode: Mode
    ids: Mapping[str, int]
    """Ids of all the tokens."""

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], InjectionCounts]:
        """Ids of each text, and what was put into them."""
        counts = InjectionCounts()
        pieces: list[str] = []
        plans: list[list[str | None]] = []
        for text in texts:
            plan, around = self._cut(text, counts)
            plans.append(plan)
            pieces += around
        encoded = iter(tokenizer.encode_batch(pieces))
        documents = []
        for plan in plans:
            document: list[int] = []
            for token in plan:
                document += next(encoded) if token is None else [self.ids[token]]
            documents.append(document)
        return documents, counts

    def _cut(self, text: str, counts: InjectionCounts) -> tuple[list[str | None], list[str]]:
        """Tokens in their order, with None for each piece of text between them; and these pieces."""
        plan: list[str | None] = []
        pieces: list[str] = []
        position = injected = 0
        for found in find_expressions(text, self.mode):
            if isinstance(found, WrongProduct):
                counts.left_alone += 1
                continue
            if found.start > position:
                pieces.append(text[position : found.start])
                plan.append(None)
            plan.append(found.token)
            position = found.end
            injected += 1
            (counts.with_product if found.stated else counts.bare)[found.token] += 1
        if position < len(text) or not plan:  # an empty text is a piece too
            pieces.append(text[position:])
            plan.append(None)
        counts.of_documents.append(injected)
        if "<MUL_" in text:
            counts.literal += sum(1 for _ in SPELLING.finditer(text))
        return plan, pieces


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
