"""What a run is validated on together, with one loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from data_tools.opened_sources import OpenedSource
from data_tools.samples.blend import whole_weights
from data_tools.samples.blended import ValidationSamples
from data_tools.samples.source import SampleSource
from data_tools.source_parts import SourcePart


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
    def tokens(self) -> int:
        """Of its documents."""
        return sum(part.tokens for part in self.parts)

    @property
    def documents(self) -> int:
        """How many it has."""
        return sum(part.documents for part in self.parts)
