"""How much a run reads of what there is, and how people are told."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_tools.samples.skipping import SkippedSamples, shown
from data_tools.source_parts import Cutting
from megatron_patches.foreign.json_text import number_of
from megatron_patches.foreign.printable import shortened
from megatron_patches.sizes import counted

TOLD = 12
"""sources, and validation groups, that are told one by one; of more sources, those that are read most"""


@dataclass(frozen=True)
class SourcePlan:
    """One source of training."""

    name: str
    weight: float
    """share of samples, at the run's beginning; 0 where it is read later only"""
    tokens: int | None
    """of its documents for training; of raw text an estimate, or None where not even that is known"""
    samples: int | None
    """of one epoch; of raw text as its tokens"""
    planned_samples: int
    """What is left out counts: another epoch begins when this one has been passed."""
    max_epochs: float
    cut_into: str
    """what its documents are cut into: windows of 2048"""
    cutting: Cutting | None
    """None of raw text, which is cut as it is read"""
    text: str | None = None
    """which raw text it is; None of a dataset"""

    @property
    def how_cut(self) -> str:
        """How often tokens are read, what is padding, what is left out."""
        return self.text or "" if self.cutting is None else self.cutting.describe()

    @property
    def planned_epochs(self) -> float | None:
        """Times that its samples are read; None where it is not known how many there are."""
        return None if self.samples is None else self.planned_samples / self.samples


@dataclass(frozen=True)
class GroupPlan:
    """One group that a run is validated on."""

    name: str
    tokens: int
    samples: int
    """that there are"""
    read: int
    """that each validation reads"""
    unit: str
    """what a sample is: a window, a pack"""


@dataclass(frozen=True)
class DataPlan:
    """What a run reads."""

    window: int
    """Tokens from one sample to the next."""
    counted: int
    """Tokens of a sample that count."""
    planned_samples: int
    """Samples that are trained on."""
    skipped_samples: int
    """Samples that are left out before the last of them."""
    skipped: SkippedSamples
    """All that are to be left out, also beyond the run's end."""
    sources: Sequence[SourcePlan]
    groups: Sequence[GroupPlan]
    changes: Sequence[str] = ()
    """sources from a step on, a line for each change"""

    @property
    def planned_tokens(self) -> int:
        """Tokens that count of all training samples, those read again included."""
        return self.planned_samples * self.counted

    @property
    def epoch(self) -> int | None:
        """Samples of an epoch; None where several sources have each their own."""
        return self.sources[0].samples if len(self.sources) == 1 else None

    def describe(self) -> list[tuple[str, str]]:
        """Pairs of a label and its text."""
        changes = [("" if number else "data changes", text) for number, text in enumerate(self.changes)]
        return [*self._training(), *changes, *self._skipped(), *self._validation()]

    def warnings(self) -> Iterator[str]:
        """Raw text that may end before the run does: how much there is shows when it is read."""
        for each in self.sources:
            epochs = each.planned_epochs
            if each.text is not None and epochs is not None and epochs > each.max_epochs:
                yield (
                    f"source {each.name}: about {epochs:.3g} epochs of its text are planned, and max_epochs is "
                    f"{each.max_epochs:g}: the run would end there with an error, its checkpoints kept. Give more "
                    f"text, fewer training.steps, or set max_epochs to {math.ceil(epochs)} or more"
                )

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "sources": [{**asdict(each), "planned_epochs": each.planned_epochs} for each in self.sources],
            "changes": list(self.changes),
            "validation": [asdict(each) for each in self.groups],
            "planned_samples": self.planned_samples,
            "planned_tokens": self.planned_tokens,
            "skipped_samples": self.skipped_samples,
        }

    def _training(self) -> Iterator[tuple[str, str]]:
        planned = f"{self.planned_tokens:,} tokens planned = "
        if len(self.sources) == 1:
            yield "training data", planned + self._of(self.sources[0])
            return
        read = f"{counted(self.planned_samples, 'sample')} of {counted(len(self.sources), 'source')}"
        alike = len({each.how_cut for each in self.sources}) == 1  # then it is said once
        yield "training data", f"{planned}{read}" + (f"; {self.sources[0].how_cut}" if alike else "")
        most = sorted(self.sources, key=lambda each: -each.planned_samples)
        for each in most[:TOLD]:
            share = f"{100 * each.weight:.4g} %" if each.weight else "later"
            yield "", f"{each.name}: {share}, {self._of(each, says_how=not alike)}"
        if rest := most[TOLD:]:
            epochs = max(each.planned_epochs or 0.0 for each in rest)
            yield "", f"and {counted(len(rest), 'source')} more, read {epochs:.3f} times at most"

    def _of(self, source: SourcePlan, says_how: bool = True) -> str:
        how = f"; {source.how_cut}" if says_how else ""
        if source.text is not None:
            return f"{_estimated(source)}{how}"
        epochs = f"{source.planned_epochs:.3f} epochs of {source.samples:,} {source.cut_into}"
        return f"{epochs} ({source.tokens:,} tokens{how})"

    def _skipped(self) -> Iterator[tuple[str, str]]:
        if not self.skipped.count:
            return
        beyond = self.skipped.count - self.skipped_samples
        left_out = f"{counted(self.skipped_samples, 'sample')} left out, not counted in the tokens planned"
        more = f"; {beyond:,} more lie beyond the run's end" if beyond else ""
        yield "skipped data", f"{left_out}: {shown(self.skipped.ranges)}{more} (data.skip_samples)"

    def _validation(self) -> Iterator[tuple[str, str]]:
        for number, group in enumerate(self.groups[:TOLD]):
            name = f"{group.name}: " if len(self.groups) > 1 or group.name != "validation" else ""
            text = f"{name}{group.read:,} of {counted(group.samples, group.unit)} ({group.tokens:,} tokens)"
            yield "" if number else "validation data", text
        if rest := self.groups[TOLD:]:
            yield "", f"and {counted(len(rest), 'group')} more, {counted(rest[0].read, rest[0].unit)} of each"


def _estimated(source: SourcePlan) -> str:
    """What is read of raw text, as far as sizes of files tell."""
    if source.samples is None or source.tokens is None:
        return f"{source.planned_samples:,} {source.cut_into} of raw text; how many there are is not known before"
    return (
        f"about {source.planned_epochs:.3g} epochs of about {source.samples:,} {source.cut_into} (raw text of about "
        f"{source.tokens:,} tokens, by the sizes of its files)"
    )


def describe_change(change: Mapping[str, Any]) -> str:
    """Sources from a step on: their share of the samples, and what they read.

    Args:
        change: an entry of `data.changes` as JSON, perhaps of another version; it has a step, and sources with names.
    """
    sources = change["sources"]
    total = sum(each for each in (number_of(source.get("weight")) for source in sources) if each is not None) or 1.0
    told = [_told_source(source, total) for source in sources[:TOLD]]
    more = [f"and {len(sources) - TOLD} more"] if len(sources) > TOLD else []
    return f"after step {change['from_step']:,}: {', '.join([*told, *more])}"


def _told_source(source: Mapping[str, Any], total: float) -> str:
    share = (number_of(source.get("weight")) or 0.0) / total
    more = [
        f"{key} {shortened(source.get(key), 40)}"
        for key, usual in (("range", "0:1"), ("shards", ":"), ("order", "shuffled"), ("max_epochs", None))
        if source.get(key, usual) != usual
    ]
    text = source.get("text")
    read = f"text {text.get('path')}" if isinstance(text, Mapping) else source.get("path")
    told = [shortened(read, 100), *more]
    return f"{shortened(source['name'], 80)} {share:.6g} ({', '.join(told)})"
