"""Documents in memory to samples, by what plans use."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.characters import CharacterCounts, CharacterTable
from data_tools.plans.extents import Stretches
from data_tools.plans.filters import Filters
from data_tools.plans.samples_config import FilteredSection
from data_tools.plans.segmenting import Answers, Segmented, gather, lay_out, segmenter_of
from data_tools.plans.wrapping import Wrapping
from data_tools.streams.documents import TokenDocuments
from data_tools.streams.settings import StreamSettings
from megatron_patches.errors import TrainyardError

Arrays = dict[str, NDArray[np.int32]]
"""of several samples, by name, int32 [samples, read] each"""


class CutSamples(ABC):
    """The samples of some documents; each is made when it is asked for."""

    def __init__(self, samples: int, read: int) -> None:
        self._samples = samples
        self._read = read

    def __len__(self) -> int:
        return self._samples

    @abstractmethod
    def arrays(self, first: int, end: int) -> Arrays:
        """The samples [first, end)."""


class _OfStream(CutSamples):
    """Documents end to end, cut at equal distances."""

    def __init__(self, tokens: NDArray[np.int32], samples: int, read: int, stride: int) -> None:
        super().__init__(samples, read)
        self._tokens = tokens
        self._stride = stride

    def arrays(self, first: int, end: int) -> Arrays:
        """See `CutSamples`."""
        starts = np.arange(first, end)[:, np.newaxis] * self._stride
        return {"tokens": self._tokens[starts + np.arange(self._read)]}


class _OfSegments(CutSamples):
    """Segments of documents, one or more a sample."""

    def __init__(
        self,
        tokens: NDArray[np.integer],
        found: Segmented,
        answers: Answers | None,
        read: int,
        wrapping: Wrapping | None,
    ) -> None:
        super().__init__(found.samples, read)
        self._wrapping = wrapping
        self._tokens = tokens
        self._found = found
        self._answers = answers

    def arrays(self, first: int, end: int) -> Arrays:
        """See `CutSamples`."""
        names = ("tokens", "segments") if self._answers is None else ("tokens", "segments", "answers")
        arrays = {name: np.empty((end - first, self._read), dtype=np.int32) for name in names}
        segments, order, firsts = self._found
        for number in range(first, end):
            chosen = order[firsts[number] : firsts[number + 1]]
            own = Stretches(segments.starts[chosen], segments.lengths[chosen])
            row = {name: array[number - first] for name, array in arrays.items()}
            lay_out(row, gather(self._tokens, own), own, self._answers, self._wrapping)
        return arrays


class Cutting:
    """Cuts documents as settings say.

    Raises:
        TrainyardError: the settings have no sense, or filters need a tokenizer that cannot be had.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._table: CharacterTable | None = None
        section = settings.samples
        if isinstance(section, FilteredSection) and section.filters.read_characters:
            if settings.tokenizer is None:
                raise TrainyardError(
                    f"source {settings.source}: data.samples.filters of characters need its tokenizer; name its "
                    "folder, or leave these filters out"
                )
            self._table = CharacterTable(settings.tokenizer)
        assert settings.lengths.stride <= settings.lengths.read, "samples of a stream leave no token out"

    def cut(self, documents: TokenDocuments, carried: list[int]) -> tuple[CutSamples, list[int]]:
        """Samples of documents that are cut together.

        Args:
            carried: tokens in front of them, of documents before, where samples are cut of a stream.

        Returns:
            The samples, and the tokens that belong to the next ones.
        """
        lengths = self._settings.lengths
        section = self._settings.samples
        if isinstance(section, FilteredSection):
            return self._cut_segments(section, documents), []
        tokens = np.concatenate([np.array(carried, dtype=np.int32), documents.tokens])
        samples = max(0, len(tokens) - lengths.read + lengths.stride) // lengths.stride
        return _OfStream(tokens, samples, lengths.read, lengths.stride), tokens[samples * lengths.stride :].tolist()

    def _cut_segments(self, section: FilteredSection, documents: TokenDocuments) -> CutSamples:
        read, tokens = self._settings.lengths.read, documents.tokens
        characters = None if self._table is None else CharacterCounts(self._table, tokens, self._settings.source)
        answers = _answers_of(documents)
        segmenter = segmenter_of(section, read, Filters(section.filters, characters), answers)
        wrapping = self._settings.wrapping
        assert section.wrapped == (wrapping is not None), "the tokens around texts are given where texts are wrapped"
        return _OfSegments(tokens, segmenter.cut(documents.stretches()), answers, read, wrapping)


def _answers_of(documents: TokenDocuments) -> Answers | None:
    mask = documents.answers
    return None if mask is None else lambda first, count: mask[first : first + count]
