"""What a run reads: sources in proportion to their weights, which may change on the way. Arithmetic, no state."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.blend import BlendPattern
from data_tools.samples.delivered import sample_hashes, source_key
from data_tools.samples.order import TrainingOrder, numbers_of_each
from data_tools.samples.source import Sample, SampleSource, SampleStream
from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class NamedSource:
    """A source of a run."""

    name: str
    samples: SampleSource | SampleStream
    """of a stream, sample i is the one that is trained on after i others; of a source with an end, the run's order says
    which"""
    dataset_ids: tuple[str, ...] = ()
    """what its samples are cut from"""
    is_stream: bool = False
    in_file_order: bool = False
    """whether its samples are read as they lie, epoch after epoch"""


Dealt = Mapping[int, Mapping[int, Sample]]
"""samples of streams that were read beforehand: by position among the run's sources, and by number"""


@dataclass(frozen=True)
class Stage:
    """Sources and their weights from a place in the run's order on."""

    first: int
    """place of its first sample"""
    sources: tuple[int, ...]
    """by their position among all sources of the run"""
    weights: tuple[int, ...]
    """see `blend.whole_weights`"""


class Located(NamedTuple):
    """Where samples lie."""

    source: NDArray[np.int64]
    """position among the run's sources, [n]"""
    number: NDArray[np.int64]
    """number in it, [n]"""


class BlendStages:
    """Which source the sample at each place is of: stages one after the other.

    A source that occurs in several stages goes on in each where it was in the one before.

    Args:
        stages: the first begins at place 0; ascending.
        sources: how many sources there are in all.
    """

    def __init__(self, stages: Sequence[Stage], sources: int) -> None:
        assert stages[0].first == 0 and [each.first for each in stages] == sorted({each.first for each in stages})
        self.stages = stages
        self._patterns = [BlendPattern(stage.weights) for stage in stages]
        self._firsts = np.array([stage.first for stage in stages], dtype=np.int64)
        self._before = [np.zeros(sources, dtype=np.int64)]
        """samples of each source that were read before each stage"""
        for number, following in enumerate(stages[1:]):
            self._before.append(self._counts_within(number, following.first))

    def indices(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source of the sample at each place, and how many samples of it are read before: int64 [n] each."""
        stages = np.searchsorted(self._firsts, places, side="right") - 1
        source, index = np.empty_like(places), np.empty_like(places)
        for number in np.unique(stages).tolist():
            here, stage = stages == number, self.stages[number]
            local, offset = self._patterns[number].locate(places[here] - stage.first)
            source[here] = np.array(stage.sources, dtype=np.int64)[local]
            index[here] = self._before[number][source[here]] + offset
        return source, index

    def counts(self, places: int) -> NDArray[np.int64]:
        """Samples of each source among the first so many: int64 [sources]."""
        return self._counts_within(max(0, int(np.searchsorted(self._firsts, places, side="left")) - 1), places)

    def _counts_within(self, stage: int, places: int) -> NDArray[np.int64]:
        """As `counts`, of a number of places that ends in a stage."""
        counts = self._before[stage].copy()
        counts[list(self.stages[stage].sources)] += self._patterns[stage].counts(places - self.stages[stage].first)
        return counts


class TrainingSamples:
    """The samples of a run by their place in its order, without an end: each source is read over and over, and a
    stream as it comes.

    Raises:
        TrainyardError: a source has no sample.
    """

    def __init__(self, sources: Sequence[NamedSource], stages: BlendStages, seed: int) -> None:
        self.sources = sources
        self.stages = stages
        self.keys = np.array([source_key(each.name, each.dataset_ids) for each in sources], dtype=np.uint64)
        """of each source, for `delivered`"""
        self.streams = tuple(number for number, each in enumerate(sources) if each.is_stream)
        """positions of the sources that are streams"""
        self._is_permuted = np.array([not each.is_stream and not each.in_file_order for each in sources])
        # a stream has no order but its own: an entry keeps the others' places in the list
        self._orders = [TrainingOrder(1, seed) if each.is_stream else _order(each, seed) for each in sources]
        self._lengths = np.array(
            [o.length if each.in_file_order else 0 for each, o in zip(sources, self._orders, strict=True)]
        )
        """samples of each source that is read as it lies; 0 for others"""

    def __getitem__(self, place: int) -> Sample:
        """The sample at a place."""
        return self.read(self.locate(np.array([place], dtype=np.int64)))[0]

    def prepare(self, places: NDArray[np.int64]) -> "TrainingSamples":
        """As `step_samples.SamplesByStep`: any sample can be read at any time, so there is nothing to do."""
        return self

    def rest(self) -> None:
        """Nothing is held between two steps: the pages of the files are the kernel's."""

    def locate(self, places: NDArray[np.int64]) -> Located:
        """Where the samples at these places lie; int64 [n]."""
        source, number = self.stages.indices(places)
        permuted = np.flatnonzero(self._is_permuted[source])
        if len(permuted):
            number[permuted] = numbers_of_each(self._orders, source[permuted], number[permuted])
        lengths = self._lengths[source]
        np.remainder(number, lengths, out=number, where=lengths > 0)
        return Located(source, number)

    def read(self, located: Located, dealt: Dealt | None = None) -> list[Sample]:
        """The samples, in order.

        Args:
            dealt: those of streams, where another process reads them.
        """
        pairs = zip(located.source.tolist(), located.number.tolist(), strict=True)
        if dealt is None:
            return [self.sources[source].samples[number] for source, number in pairs]
        return [
            dealt[source][number] if source in dealt else self.sources[source].samples[number]
            for source, number in pairs
        ]

    def hashes(self, places: NDArray[np.int64], located: Located, samples: Sequence[Sample]) -> NDArray[np.uint64]:
        """The number of each sample that was read from these places (`delivered.sample_hashes`), uint64 [n]."""
        return sample_hashes(places, self.keys[located.source], located.number, samples)


def _order(source: NamedSource, seed: int) -> TrainingOrder:
    assert isinstance(source.samples, Sized)
    try:
        return TrainingOrder(len(source.samples), seed, source.name)
    except TrainyardError as error:
        raise TrainyardError(f"source {source.name}: {error}") from None


class ValidationSamples:
    """The first samples of several sources in proportion to their weights, each in its own order: a source.

    It ends where one of them has no more.
    """

    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[int]) -> None:
        self.sources = sources
        self._pattern = BlendPattern(weights)
        # up to the sample before the first one that a source lacks
        ends = [self._pattern.first_with(each, len(one) + 1) - 1 for each, one in enumerate(sources)]
        self._length = min(ends)
        self.shortest = ends.index(self._length)
        """number of the source that ends first"""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Sample:
        """Raises IndexError where there is no such sample."""
        if not 0 <= number < self._length:
            raise IndexError(f"sample {number} of {self._length}")
        (source,), (inside,) = self._pattern.locate(np.array([number], dtype=np.int64))
        return self.sources[int(source)][int(inside)]
