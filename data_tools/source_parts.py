"""What a source gives: its documents, cut into samples, and how that went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.plans.facts import PlanFacts
from data_tools.plans.planned_samples import PlannedSamples
from data_tools.samples.concatenation import Concatenation
from data_tools.samples.source import SampleSource
from data_tools.samples.windows import TokenWindows

_LONGER, _WITHOUT_ANSWER = "longer than a sample", "without an answer"
"""why texts are left out where it was no filter"""


@dataclass(frozen=True)
class SourcePart:
    """Some of a source's documents, cut into samples."""

    selections: Sequence[Selection]
    """of each dataset"""
    pieces: Sequence[TokenWindows | PlannedSamples]
    """samples of each dataset"""

    @cached_property
    def samples(self) -> SampleSource:
        """The samples of all pieces, one piece after the other."""
        return self.pieces[0] if len(self.pieces) == 1 else Concatenation(self.pieces)

    @property
    def documents(self) -> int:
        """How many documents it has."""
        return sum(
            piece.facts.documents if isinstance(piece, PlannedSamples) else _count(selection)
            for piece, selection in zip(self.pieces, self.selections, strict=True)
        )

    @property
    def tokens(self) -> int:
        """Tokens of its documents."""
        return sum(
            piece.facts.selected_tokens if isinstance(piece, PlannedSamples) else piece.tokens for piece in self.pieces
        )

    @property
    def cutting(self) -> "Cutting":
        """How its documents became samples; a stream reads every token once.

        A stream's samples share a token where one is predicted by the last of the sample before it. That is no overlap.
        """
        facts = [piece.facts for piece in self.pieces if isinstance(piece, PlannedSamples)]
        cut = [each for each in facts if each.plan != "stream"]
        return Cutting.of(cut) if cut else Cutting(1.0, 1, 0.0, self.tokens, {})


def _count(selection: Selection) -> int:
    return selection.end - selection.first if isinstance(selection, DocumentRange) else 0


@dataclass(frozen=True)
class Cutting:
    """How documents became samples."""

    multiplicity: float
    """how often a token that is read at all is in a sample, in the mean"""
    largest_multiplicity: int
    padding_share: float
    """of the places of all samples"""
    distinct_tokens: int
    """that any sample has"""
    removed: Mapping[str, int]
    """texts that were left out, by what removed them"""

    @classmethod
    def of(cls, facts: Sequence[PlanFacts]) -> "Cutting":
        """That of several plans together."""
        tokens, distinct = sum(each.tokens for each in facts), sum(each.distinct_tokens for each in facts)
        places = sum(each.samples * each.read for each in facts)
        removed: Counter[str] = Counter()
        for each in facts:
            removed.update(each.removed)
            removed.update({_LONGER: each.dropped, _WITHOUT_ANSWER: each.without_answers})
        return cls(
            multiplicity=tokens / distinct if distinct else 0.0,
            largest_multiplicity=max(each.largest_multiplicity for each in facts),
            padding_share=sum(each.padding_share * each.samples * each.read for each in facts) / max(1, places),
            distinct_tokens=distinct,
            removed={name: count for name, count in removed.items() if count},
        )

    def describe(self) -> str:
        """In a few words."""
        texts = [f"each token {self.multiplicity:.3g} times" if self.largest_multiplicity > 1 else "no overlap"]
        if self.largest_multiplicity > 1:
            texts[0] += f" in the mean, {self.largest_multiplicity} at most"
        texts.append(f"{self.padding_share:.2%} padding" if self.padding_share else "no padding")
        if self.removed:
            texts.append(f"left out: {told_removed(self.removed)}")
        return ", ".join(texts)


def told_removed(removed: Mapping[str, int]) -> str:
    """How many texts were left out by what."""
    return ", ".join(_removed(name, count) for name, count in removed.items())


def _removed(name: str, count: int) -> str:
    return f"{count:,} {name}" if name in (_LONGER, _WITHOUT_ANSWER) else f"{count:,} by {name}"
