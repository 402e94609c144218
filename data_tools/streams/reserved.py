"""The first documents of a source, which are kept for evaluation."""

from collections.abc import Sequence

from data_tools.reading.block import Part
from data_tools.samples.source import Sample
from data_tools.streams.settings import Encode, StreamSettings


class ReservedSamples:
    """Samples of documents that are held in memory: a `SampleSource`."""

    per_part: tuple[int, ...]
    """documents of each part, for `StreamSettings.reserved`"""
    documents: int
    tokens: int

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, number: int) -> Sample:
        raise NotImplementedError


def reserve(
    parts: Sequence[Part], encode: Encode, settings: StreamSettings, minimum_documents: int, minimum_samples: int
) -> ReservedSamples:
    """Reads the first documents in the given order of parts: at least `minimum_documents`, and as many more as make
    `minimum_samples` samples.

    Raises:
        TrainyardError: there are not enough; it says how many there are.
    """
    raise NotImplementedError
