"""What a launch reads, opened again from its configuration: the samples at each place of its order."""

from collections.abc import Sequence, Sized

import numpy as np
from numpy.typing import NDArray

from data_tools.opened_text import ReadText
from data_tools.run_data import RunData
from data_tools.samples.blended import Located
from data_tools.samples.skipping import SkippedSamples, first_difference
from data_tools.samples.source import Sample
from megatron_patches.checkout import CHECKOUT
from megatron_patches.launch.preparation import PreparationProgress
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import text_preparation
from tools.run_views.stream_places import Places

TOKENS_AT_ONCE = 1 << 20
"""of samples that are in memory together"""


class ReadOrder:
    """The samples of a run, by how many were trained on before them.

    Args:
        places: from which its text sources can be read on.

    Raises:
        TrainyardError: datasets or the tokenizer are missing or damaged.
    """

    def __init__(self, config: RunConfig, places: Places) -> None:
        # what was marked invalid since can be looked at too
        section = config.data.model_copy(update={"allow_invalid": True})
        self.data = RunData(
            section, CHECKOUT, config.lengths, config.place_after, PreparationProgress(), text_preparation(config)
        )
        self.samples = self.data.training(config.training.seed)
        for number in self.samples.streams:
            source = self.samples.sources[number]
            assert isinstance(source.samples, ReadText)
            source.samples.begin_from(places.get(source.name, ()))
        self.skipped = SkippedSamples(section.skip_samples)
        self.seed = config.training.seed
        self._at_once = max(1, TOKENS_AT_ONCE // config.lengths.read)

    def read(self, first: int, count: int) -> tuple[NDArray[np.int64], Located, list[Sample]]:
        """Places, whereabouts and content of the samples that are trained on after `first` others."""
        places = self.skipped.places(np.arange(first, first + count, dtype=np.int64))
        located = self.samples.locate(places)
        return places, located, self.samples.read(located)

    def sums(self, firsts: Sequence[int], sizes: Sequence[int]) -> NDArray[np.uint64]:
        """Hashes of stretches of samples: of `sizes[i]` after `firsts[i]` others; uint64 [n].

        Stretches that follow each other are read together.
        """
        counts = np.asarray(sizes, dtype=np.int64)
        owner = np.repeat(np.arange(len(counts)), counts)
        begins = np.cumsum(counts) - counts
        trained = np.arange(len(owner)) - begins[owner] + np.asarray(firsts, dtype=np.int64)[owner]
        sums = np.zeros(len(counts), dtype=np.uint64)
        for begin in range(0, len(owner), self._at_once):
            here = slice(begin, begin + self._at_once)
            places = self.skipped.places(trained[here])
            located = self.samples.locate(places)
            hashes = self.samples.hashes(places, located, self.samples.read(located))
            np.add.at(sums, owner[here], hashes)
        return sums

    def agrees(self, other: "ReadOrder", trained: int) -> bool:
        """Whether both read the same up to the sample of which so many were trained on before."""
        if self is other or trained == 0:
            return True
        place = self.skipped.reached(trained)
        differs = first_difference(self.skipped.ranges, other.skipped.ranges)
        return (differs is None or differs >= place) and self._before(place) == other._before(place)

    def _before(self, place: int) -> object:
        """What decides the samples at the places before this one."""
        keys, sources = self.samples.keys.tolist(), self.samples.sources
        stages = [stage for stage in self.samples.stages.stages if stage.first < place]
        told = [(stage.first, stage.weights, [keys[each] for each in stage.sources]) for stage in stages]
        used = {each for stage in stages for each in stage.sources}
        # a stream's key says all of it
        lengths = {keys[each]: len(found) for each in used if isinstance(found := sources[each].samples, Sized)}
        return self.seed, told, lengths


class ReadOrders:
    """Those of a run's launches; launches that read the same share one."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._opened: list[tuple[tuple[object, ...], ReadOrder]] = []

    def open(self, config: RunConfig) -> ReadOrder:
        """Raises TrainyardError where the data is missing or damaged."""
        wanted = (config.data, config.lengths, config.training.seed, config.timetable.stretches)
        for known, order in self._opened:
            if known == wanted:
                return order
        order = ReadOrder(config, self._places)
        self._opened.append((wanted, order))
        return order
