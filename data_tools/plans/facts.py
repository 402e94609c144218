"""What a plan's manifest says of it, and how that is counted."""

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue

from data_tools.plans.extents import Stretches
from data_tools.plans.plan_file import PlanKind
from megatron_patches.sizes import counted


class PlanFacts(BaseModel):
    """What is in a plan, and what of the selected documents is not."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: int
    key: str
    """sha256 of what decides the plan: version, dataset, selection, settings, `read`, tokenizer, answers"""
    plan: PlanKind
    settings: dict[str, JsonValue]
    """of `data.samples`, as far as they decide the plan"""
    selection: str
    read: int
    """tokens that a sample has room for"""
    documents: int
    """selected"""
    selected_tokens: int
    """of the selected documents"""
    segments: int
    """stretches of one document each; of a stream, of adjacent documents"""
    samples: int
    tokens: int
    """of the texts of all samples together; a token that several samples have counts in each"""
    distinct_tokens: int
    """tokens of the dataset that any sample has"""
    multiplicity: float
    """how often a token of those is in a sample, in the mean"""
    largest_multiplicity: int
    """the same of the token that most samples have"""
    padding_share: float
    """of the places of all samples; tokens around wrapped texts are no padding"""
    removed: dict[str, int]
    """windows (of packs: documents) that were left out, by the filter that removed them"""
    cut: int
    """documents longer than a sample that were cut"""
    dropped: int
    """documents longer than a sample that were left out"""
    without_answers: int
    """segments that were left out because nothing in them is to be predicted"""

    @property
    def fill(self) -> float:
        """Share of the samples' places that are no padding."""
        return 1.0 - self.padding_share

    @property
    def wrapped(self) -> bool:
        """Whether each segment has a token more at either end."""
        return self.settings.get("wrapped") is True

    def describe(self) -> str:
        """The plan in a line: what is read, how often, and what is not."""
        unit = "window" if self.plan == "windows" else "document"
        less = [
            (self.cut, f"{counted(self.cut, 'longer document')} cut"),
            (self.dropped, f"{counted(self.dropped, 'longer document')} dropped"),
            (self.without_answers, f"{counted(self.without_answers, 'segment')} without an answer left out"),
            *((count, f"{counted(count, unit)} removed by {name}") for name, count in self.removed.items()),
        ]
        return "; ".join(
            [
                f"{counted(self.samples, 'sample')} of {self.read:,} places, {self.fill:.2%} of them filled",
                f"{counted(self.tokens, 'token')}: {self.distinct_tokens:,} of {self.selected_tokens:,} in "
                f"{counted(self.documents, 'document')}, {self.multiplicity:.3f} times in the mean and at most "
                f"{self.largest_multiplicity}",
                *(["each text between a cls and a sep token"] if self.wrapped else []),
                *(text for count, text in less if count),
            ]
        )


class Coverage:
    """Counts how often tokens are read, from stretches that come in file order."""

    def __init__(self) -> None:
        self.tokens = 0
        self.distinct = 0
        self.largest = 0
        """most stretches that one token is in"""

    def add(self, stretches: Stretches) -> None:
        """Counts the stretches of some documents, all that there are of each."""
        if not len(stretches.starts):
            return
        starts, ends = stretches.starts, stretches.ends
        reach = np.maximum.accumulate(ends)
        seen = np.append(starts[0], np.maximum(starts[1:], reach[:-1]))
        self.tokens += int(stretches.lengths.sum())
        self.distinct += int(np.maximum(ends - seen, 0).sum())
        # of the stretches that have begun by a start, those that have ended by it no longer count
        ended = np.searchsorted(np.sort(ends), starts, "right")
        self.largest = max(self.largest, int((np.arange(1, len(starts) + 1) - ended).max()))
