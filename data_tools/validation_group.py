"""What a run is validated on together, with one loss."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from data_tools.opened_sources import OpenedSource
from data_tools.samples.blend import whole_weights
from data_tools.samples.blended import ValidationSamples
from data_tools.samples.source import SampleSource
from data_tools.source_parts import SourcePart, told_removed


@dataclass(frozen=True)
class ValidationGroup:
    """What is validated on together."""

    name: str
    weights: Sequence[float]
    sources: Sequence[OpenedSource]
    parts: Sequence[SourcePart]
    """documents of each source"""

    @cached_property
    def samples(self) -> SampleSource:
        """Of all sources, in proportion to their weights."""
        if len(self.parts) == 1:
            return self.parts[0].samples
        return ValidationSamples([part.samples for part in self.parts], whole_weights(self.weights))

    @property
    def shortest(self) -> tuple[OpenedSource, SourcePart]:
        """The source whose samples end first, and with them those of all."""
        samples = self.samples
        number = samples.shortest if isinstance(samples, ValidationSamples) else 0
        return self.sources[number], self.parts[number]

    @property
    def told_left_out(self) -> str:
        """Texts that were left out of its samples, and by what, as part of a sentence; empty where none were."""
        found: Counter[str] = Counter()
        for part in self.parts:
            found.update(part.cutting.removed)
        return f"; left out: {told_removed(found)}" if found else ""

    @property
    def tokens(self) -> int:
        """Of its documents."""
        return sum(part.tokens for part in self.parts)

    @property
    def documents(self) -> int:
        """How many it has."""
        return sum(part.documents for part in self.parts)
