"""Which segments of documents make which samples: windows and packs, of a dataset or of documents in memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.cutting import cut
from data_tools.plans.extents import Stretches
from data_tools.plans.filters import Filters
from data_tools.plans.packing import pack
from data_tools.plans.samples_config import PLACES_AROUND, FilteredSection, PacksConfig, WindowsConfig
from data_tools.plans.sums import sums
from data_tools.plans.wrapping import Wrapping, own_places

Answers = Callable[[int, int], NDArray[np.bool_]]
"""(first token, count) -> whether each of these tokens belongs to an answer, bool [count]"""


class Segmented(NamedTuple):
    """The segments of some documents, and the samples that they make."""

    segments: Stretches
    """in file order, [segments]"""
    order: NDArray[np.int64]
    """segments of the first sample, then of the second, and so on: their places in `segments`, [segments]"""
    firsts: NDArray[np.int64]
    """place in `order` of each sample's first segment, and at the end the number of segments, [samples + 1]"""

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.firsts) - 1


class Segmenter(ABC):
    """Chooses and cuts documents.

    Args:
        read: places of a sample.
        answers: None where all tokens are to be predicted.
    """

    def __init__(self, section: FilteredSection, read: int, filters: Filters, answers: Answers | None) -> None:
        self._read, self._room = read, section.room(read)
        self.around = read - self._room
        """places of a sample beside those of each segment's tokens"""
        self._unpredicted = 0 if section.wrapped else 1  # tokens at a text's beginning that follow on nothing
        self._filters = filters
        self._answers = answers
        self.longer = 0
        """documents that passed the filters and are longer than a sample, where that is no matter of course"""
        self.without_answers = 0
        """segments that were left out because nothing in them is to be predicted"""

    @property
    def removed(self) -> dict[str, int]:
        """Texts that were left out, by the filter that removed them."""
        return self._filters.removed

    @abstractmethod
    def cut(self, documents: Stretches) -> Segmented:
        """Samples of documents that are cut together, none of them empty."""

    def _with_answers(self, segments: Stretches) -> Stretches:
        """Those in which something is to be predicted: an answer's token that something precedes in its segment."""
        if self._answers is None:
            return segments
        answers = self._answers
        first = self._unpredicted
        has = segments.lengths > first
        behind = Stretches(segments.starts[has] + first, segments.lengths[has] - first)

        def look(runs: Stretches) -> NDArray[np.bool_]:
            each = zip(runs.starts.tolist(), runs.lengths.tolist(), strict=True)
            return np.concatenate([answers(start, count) for start, count in each])[np.newaxis]

        # sums only see that there are integers: a mask counts
        has[has] = sums(behind, look, 1)[0] > 0  # type: ignore[arg-type]
        self.without_answers += int(np.count_nonzero(~has))
        return segments.where(has)


class WindowSegmenter(Segmenter):
    """Windows within documents, one a sample."""

    def __init__(self, section: WindowsConfig, read: int, filters: Filters, answers: Answers | None) -> None:
        super().__init__(section, read, filters, answers)
        self._stride = section.stride_of(self._room)
        self._balance_last = section.balance_last

    def cut(self, documents: Stretches) -> Segmented:
        """See `Segmenter`."""
        windows = self._with_answers(self._filters.keep(cut(documents, self._room, self._stride, self._balance_last)))
        numbers = np.arange(len(windows.starts) + 1)
        return Segmented(windows, numbers[:-1], numbers)


class PackSegmenter(Segmenter):
    """Several documents a sample."""

    def __init__(self, section: PacksConfig, read: int, filters: Filters, answers: Answers | None) -> None:
        super().__init__(section, read, filters, answers)
        self._drops = section.longer == "drop"

    def cut(self, documents: Stretches) -> Segmented:
        """See `Segmenter`."""
        kept = self._filters.keep(documents)
        longer = kept.lengths > self._room
        self.longer += int(np.count_nonzero(longer))
        if self._drops:
            kept = kept.where(~longer)
        segments = self._with_answers(cut(kept, self._room, self._room, balance_last=False))
        packs = pack(segments.lengths + self.around, self._read)
        firsts = np.append(0, np.cumsum(np.bincount(packs)))
        return Segmented(segments, np.argsort(packs, kind="stable"), firsts)


def segmenter_of(section: FilteredSection, read: int, filters: Filters, answers: Answers | None) -> Segmenter:
    """What cuts documents as a section says."""
    if isinstance(section, WindowsConfig):
        return WindowSegmenter(section, read, filters, answers)
    assert isinstance(section, PacksConfig), f"{section.name} samples are not made of segments"
    return PackSegmenter(section, read, filters, answers)


def lay_out(
    arrays: dict[str, NDArray[np.signedinteger]],
    tokens: NDArray[np.integer],
    segments: Stretches,
    answers: Answers | None,
    wrapping: Wrapping | None = None,
) -> None:
    """Writes one sample.

    Args:
        arrays: to be written, [read] each: `tokens`, `segments`, and `answers` where there are any.
        tokens: those of its segments, end to end, no more than have room.
        segments: where they lie, for `answers`.
        wrapping: what stands around each segment, belongs to it, and is no answer; None: nothing does.
    """
    lengths, count = segments.lengths, len(tokens)
    own: slice | NDArray[np.int64] = slice(count)
    if wrapping is not None:
        own = own_places(lengths)
        lengths = lengths + PLACES_AROUND
        ends = np.cumsum(lengths)
        count = int(ends[-1])
        arrays["tokens"][ends - lengths], arrays["tokens"][ends - 1] = wrapping.cls, wrapping.sep
    arrays["tokens"][own], arrays["tokens"][count:] = tokens, 0 if wrapping is None else wrapping.pad
    arrays["segments"][:count] = np.repeat(np.arange(len(lengths)), lengths)
    arrays["segments"][count:] = -1
    if answers is not None:
        each = zip(segments.starts.tolist(), segments.lengths.tolist(), strict=True)
        arrays["answers"][:] = 0
        arrays["answers"][own] = np.concatenate([answers(start, length) for start, length in each])


def gather(tokens: NDArray[np.integer], segments: Stretches) -> NDArray[np.integer]:
    """The tokens of stretches, end to end."""
    starts, lengths = segments
    if len(starts) == 1:
        return tokens[starts[0] : starts[0] + lengths[0]]
    before = np.cumsum(lengths) - lengths
    return tokens[np.repeat(starts - before, lengths) + np.arange(lengths.sum())]
