"""Samples that a plan's file lists."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.plans.extents import Stretches
from data_tools.plans.facts import PlanFacts
from data_tools.plans.plan_file import Arrays, make_again
from data_tools.plans.samples_config import PLACES_AROUND
from data_tools.plans.segmenting import Answers, gather, lay_out
from data_tools.plans.wrapping import Wrapping
from data_tools.samples.source import Sample
from megatron_patches.errors import Damaged
from megatron_patches.foreign.printable import printable

CHECKED_AT_OPEN = 1024
"""places of an array that are looked at, spread over it: a constant cost for any number of samples"""


class PlannedSamples(ABC):
    """A `SampleSource` with what is known of it."""

    def __init__(self, path: Path, facts: PlanFacts, dataset: IndexedDataset) -> None:
        self.facts = facts
        self._path = path
        self._dataset = dataset

    def __len__(self) -> int:
        return self.facts.samples

    def __getitem__(self, number: int) -> Sample:
        """One sample.

        Raises:
            IndexError: there is none of this number.
            Damaged: the plan names tokens that the dataset does not have.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        return self._read(int(number))

    def stretches(self, number: int) -> list[tuple[int, int]]:
        """The tokens of the dataset, [first, end), that a sample is made of, in order; raises as reading it does."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        starts, lengths = self._stretches(int(number))
        return list(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))

    @abstractmethod
    def _read(self, number: int) -> Sample:
        """Of a number that there is."""

    @abstractmethod
    def _stretches(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and lengths of the stretches of a sample that there is, int64 [stretches] each, checked."""

    def _check(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], fits: bool, what: str) -> None:
        """Raises Damaged unless it `fits`, and segments are stretches of the dataset."""
        inside = (starts >= 0) & (lengths > 0) & (starts <= len(self._dataset.tokens) - lengths)
        if not (fits and inside.all()):
            raise Damaged(
                f"{printable(self._path)}: {what} is not made of tokens of {self._dataset.bin_path}, or has more than "
                f"{self.facts.read}: the plan is damaged; {make_again(self._path)}"
            )


class PlannedSegments(PlannedSamples):
    """Samples of segments, each a stretch of one document: of `windows` one, of `packs` as many as have room.

    An item has `tokens` and `segments`, int64 [read]: `segments[i]` is the number, 0, 1, ..., of the segment that token
    i belongs to, and -1 where the sample is filled up with token 0, which is no target. The first token of a segment is
    predicted by none before it. If the dataset has answers, an item also has `answers`, int64 [read]: 1 for a token
    that belongs to an answer. Wrapped segments have a token more at either end, which belongs to them and is no answer,
    and padding is the wrapping's.
    """

    def __init__(
        self,
        path: Path,
        facts: PlanFacts,
        dataset: IndexedDataset,
        arrays: Arrays,
        answers: Answers | None,
        wrapping: Wrapping | None = None,
    ) -> None:
        super().__init__(path, facts, dataset)
        self._wrapping = wrapping
        self._around = PLACES_AROUND if wrapping is not None else 0
        self._starts, self._lengths = arrays["starts"], arrays["lengths"]
        self._firsts: NDArray[np.int64] | None = arrays.get("first_segments")
        self._answers = answers
        self._check_places()

    def _check_places(self) -> None:
        """Looks at some segments, and at whether those of some samples follow each other."""
        if self._firsts is not None:
            ends = [int(self._firsts[0]), int(self._firsts[-1])]
            chosen = _spread(len(self))
            if ends != [0, len(self._starts)] or (self._firsts[chosen] >= self._firsts[chosen + 1]).any():
                raise Damaged(f"{printable(self._path)}: its samples are not in order; {make_again(self._path)}")
        chosen = _spread(len(self._starts))
        lengths = self._lengths[chosen].astype(np.int64)
        fits = bool((lengths + self._around <= self.facts.read).all())
        self._check(self._starts[chosen], lengths, fits, "a segment")

    def _stretches(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first, last = number, number + 1
        if self._firsts is not None:
            first, last = int(self._firsts[number]), int(self._firsts[number + 1])
        starts, lengths = self._starts[first:last], self._lengths[first:last].astype(np.int64)
        places = int(lengths.sum()) + self._around * len(lengths)
        fits = 0 <= first < last <= len(self._starts) and places <= self.facts.read
        self._check(starts, lengths, fits, f"sample {number}")
        return starts, lengths

    def _read(self, number: int) -> Sample:
        segments = Stretches(*self._stretches(number))
        names = ("tokens", "segments") if self._answers is None else ("tokens", "segments", "answers")
        sample = {name: np.empty(self.facts.read, dtype=np.int64) for name in names}
        lay_out(sample, gather(self._dataset.tokens, segments), segments, self._answers, self._wrapping)
        return sample


class SelectedStream(PlannedSamples):
    """The selected documents end to end, cut as `TokenWindows` cuts a range: items are `{"tokens": int64 [read]}`.

    Sample w starts at token w * stride of the stream. The file lists runs of adjacent documents; those of a sample are
    found by binary search.
    """

    def __init__(self, path: Path, facts: PlanFacts, dataset: IndexedDataset, arrays: Arrays, stride: int) -> None:
        super().__init__(path, facts, dataset)
        self._starts, self._ends = arrays["starts"], arrays["ends"]
        self._stride = stride
        chosen = _spread(len(self._ends))
        total = int(self._ends[-1]) if len(self._ends) else 0
        if total != facts.selected_tokens or (self._ends[chosen] <= self._begins(chosen)).any():
            raise Damaged(f"{printable(path)}: its runs do not have the tokens of the stream; {make_again(path)}")

    def _begins(self, runs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the stream before each of these runs."""
        return np.where(runs > 0, self._ends[runs - 1], 0)

    def _read(self, number: int) -> Sample:
        tokens = gather(self._dataset.tokens, Stretches(*self._stretches(number)))
        return {"tokens": tokens.astype(np.int64)}

    def _stretches(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        begin = number * self._stride
        end = begin + self.facts.read
        first = int(np.searchsorted(self._ends, begin, "right"))
        last = int(np.searchsorted(self._ends, end, "left")) + 1
        runs = np.arange(first, min(last, len(self._ends)))
        starts, begins, ends = self._starts[runs], self._begins(runs), self._ends[runs]
        # of the first and the last run, the part that lies in the sample
        lengths = np.minimum(ends, end) - np.maximum(begins, begin)
        self._check(starts, ends - begins, int(lengths.sum()) == self.facts.read, f"sample {number}")
        return starts + np.maximum(begin - begins, 0), lengths


def _spread(count: int) -> NDArray[np.int64]:
    """Some of `count` numbers, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), CHECKED_AT_OPEN).astype(np.int64))[: min(count, CHECKED_AT_OPEN)]
