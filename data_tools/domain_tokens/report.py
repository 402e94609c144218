"""What injection did to a dataset: how many tokens it put in, which, and where in the documents they fall."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator

from data_tools.domain_tokens.multiplication import Mode, multiplication_tokens
from megatron_patches.sizes import counted

PARTS = 10
_NAMED = 5
"""tokens that are told by name for people; the manifest has all of them"""


class InjectionFacts(BaseModel):
    """What a dataset's manifest says of the tokens that were put into its texts."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    mode: Mode
    bare: dict[str, int]
    """Expressions without a product that a token replaced, by token; tokens that replaced none are left out."""
    with_product: dict[str, int]
    """Those with their product."""
    tenths: list[int]
    """Tokens put into the first tenth of the documents, the second, and so on to the last; none where it is not known,
    as of a dataset that was merged.
    """
    documents: int
    """Documents with at least one of them."""
    left_alone: int
    """Equations that stayed text, since another number than the product, or more than it, is on their other side."""
    literal: int
    """Places where a text spells such a token; they stayed text."""

    @property
    def injected(self) -> int:
        """Tokens put in."""
        return sum(self.bare.values()) + sum(self.with_product.values())

    @field_validator("bare", "with_product")
    @classmethod
    def _only_tokens_of_the_table(cls, counts: dict[str, int]) -> dict[str, int]:
        """So that the facts of merged datasets are no longer than those of one."""
        if not counts.keys() <= set(multiplication_tokens()):
            raise ValueError("a token of it is none of the multiplication table")
        return counts


def joined_facts(each: Sequence[InjectionFacts | None]) -> InjectionFacts | None:
    """The facts of several datasets together; None where those of one are not known, or the modes differ."""
    known = [facts for facts in each if facts is not None]
    if not known or len(known) < len(each) or len({facts.mode for facts in known}) > 1:
        return None
    bare, with_product = Counter[str](), Counter[str]()
    for facts in known:
        bare.update(facts.bare)
        with_product.update(facts.with_product)
    return InjectionFacts(
        mode=known[0].mode,
        bare=dict(sorted(bare.items())),
        with_product=dict(sorted(with_product.items())),
        tenths=known[0].tenths if len(known) == 1 else [],
        documents=sum(facts.documents for facts in known),
        left_alone=sum(facts.left_alone for facts in known),
        literal=sum(facts.literal for facts in known),
    )


class TextCounts(NamedTuple):
    """What was counted in one text."""

    bare: tuple[str, ...] = ()
    """Tokens of expressions without a product, in their order."""
    with_product: tuple[str, ...] = ()
    """Those of expressions with it."""
    left_alone: int = 0
    literal: int = 0


@dataclass
class InjectionCounts:
    """What was counted in the documents of a dataset."""

    bare: Counter[str] = field(default_factory=Counter)
    with_product: Counter[str] = field(default_factory=Counter)
    left_alone: int = 0
    literal: int = 0

    def add(self, texts: Iterable[TextCounts]) -> int:
        """Adds what was counted in the texts of one document; the tokens that were put into it."""
        injected = 0
        for text in texts:
            self.bare.update(text.bare)
            self.with_product.update(text.with_product)
            self.left_alone += text.left_alone
            self.literal += text.literal
            injected += len(text.bare) + len(text.with_product)
        return injected

    def facts(self, mode: Mode, of_documents: NDArray[np.int32]) -> InjectionFacts:
        """The facts of all documents together; tenth t of n documents is [n t // 10, n (t + 1) // 10).

        Args:
            of_documents: tokens put into each document, [n]; it may be a mapped file.
        """
        number = len(of_documents)
        ends = [number * part // PARTS for part in range(PARTS + 1)]
        return InjectionFacts(
            mode=mode,
            bare=dict(sorted(self.bare.items())),
            with_product=dict(sorted(self.with_product.items())),
            tenths=[int(of_documents[first:end].sum(dtype=np.int64)) for first, end in pairwise(ends)],
            documents=int(np.count_nonzero(of_documents)),
            left_alone=self.left_alone,
            literal=self.literal,
        )


def describe_injection(facts: InjectionFacts) -> list[tuple[str, str]]:
    """The same for people, a name and what it is a line."""
    bare, stated = sum(facts.bare.values()), sum(facts.with_product.values())
    return [
        (
            "injected",
            f"{counted(facts.injected, 'token')} in {counted(facts.documents, 'document')} ({facts.mode}): "
            f"{bare:,} bare, {stated:,} with the product",
        ),
        ("most frequent", _most_frequent(facts)),
        ("by tenth of documents", ", ".join(f"{each:,}" for each in facts.tenths) or "not known"),
        (
            "left as text",
            f"{facts.left_alone:,} equations that do not plainly state the product, "
            f"{facts.literal:,} literal spellings of a token",
        ),
    ]


def _most_frequent(facts: InjectionFacts) -> str:
    together: Counter[str] = Counter()
    for counts in (facts.bare, facts.with_product):
        together.update(counts)
    return _listed(sorted(together.items(), key=lambda each: (-each[1], each[0])))


def _listed(tokens: Iterable[tuple[str, int]]) -> str:
    each = [f"{token} {count:,}" for token, count in tokens]
    more = f" and {len(each) - _NAMED} more kinds" if len(each) > _NAMED else ""
    return (", ".join(each[:_NAMED]) + more) if each else "none"
