"""How much a run reads of what there is, and how people are told."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_tools.data_config import SourceChangeConfig
from data_tools.samples.skipping import SkippedSamples, shown
from megatron_patches.sizes import counted

SOURCES_TOLD = 12
"""sources that are told one by one; of more, those that are read most"""


@dataclass(frozen=True)
class SourcePlan:
    """One source of training."""

    name: str
    weight: float
    """share of samples, at the run's beginning; 0 where it is read later only"""
    tokens: int
    """of its documents for training"""
    samples: int
    """of one epoch"""
    planned_samples: int
    """What is left out counts: another epoch begins when this one has been passed."""
    max_epochs: float
    described: str
    """how its documents are cut"""

    @property
    def planned_epochs(self) -> float:
        """Times that its samples are read."""
        return self.planned_samples / self.samples


@dataclass(frozen=True)
class GroupPlan:
    """One group that a run is validated on."""

    name: str
    tokens: int
    samples: int
    """that there are"""
    read: int
    """that each validation reads"""


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

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "sources": [{**asdict(each), "planned_epochs": each.planned_epochs} for each in self.sources],
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
        yield "training data", f"{planned}{counted(self.planned_samples, 'sample')} of {len(self.sources)} sources"
        most = sorted(self.sources, key=lambda each: -each.planned_samples)
        for each in most[:SOURCES_TOLD]:
            yield f"  {each.name}", f"{each.weight:.4g} of the samples: {self._of(each)}"
        if rest := most[SOURCES_TOLD:]:
            epochs = max(each.planned_epochs for each in rest)
            yield "", f"and {counted(len(rest), 'source')} more, read {epochs:.3f} times at most (tools/dataset plan)"

    def _of(self, source: SourcePlan) -> str:
        cut, _, how = source.described.partition(", ")
        return f"{source.planned_epochs:.3f} epochs of {source.samples:,} {cut} ({source.tokens:,} tokens; {how})"

    def _skipped(self) -> Iterator[tuple[str, str]]:
        if not self.skipped.count:
            return
        beyond = self.skipped.count - self.skipped_samples
        left_out = f"{counted(self.skipped_samples, 'sample')} left out, not counted in the tokens planned"
        more = f"; {beyond:,} more lie beyond the run's end" if beyond else ""
        yield "skipped data", f"{left_out}: {shown(self.skipped.ranges)}{more} (data.skip_samples)"

    def _validation(self) -> Iterator[tuple[str, str]]:
        for number, group in enumerate(self.groups):
            name = f"{group.name}: " if len(self.groups) > 1 or group.name != "validation" else ""
            text = f"{name}{group.read:,} of {counted(group.samples, 'window')} ({group.tokens:,} tokens)"
            yield "" if number else "validation data", text


def describe_change(change: SourceChangeConfig) -> str:
    """Sources from a step on, those of the largest weights first."""
    total = sum(each.weight for each in change.sources)
    largest = sorted(change.sources, key=lambda each: -each.weight)
    told = [f"{each.name} {each.weight / total:.4g}" for each in largest[:SOURCES_TOLD]]
    more = [f"{len(largest) - SOURCES_TOLD} more"] if len(largest) > SOURCES_TOLD else []
    return f"after step {change.from_step:,}: {', '.join(told + more)}"
