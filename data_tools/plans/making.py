"""From the documents of a selection to the arrays of a plan, in blocks of documents."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.plans.extents import Stretches, equal_blocks, extents
from data_tools.plans.facts import Coverage
from data_tools.plans.plan_file import PlanWriter
from data_tools.plans.samples_config import PacksConfig
from data_tools.plans.segmenting import Segmenter
from data_tools.plans.sums import merged
from data_tools.samples.lengths import SampleLengths

DOCUMENTS_AT_ONCE = 4096
"""where a plan does not depend on it; with a stride of one token, windows of a block take some GB"""

OnProgress = Callable[[int, int], None]
"""(documents passed, of all)"""


class Maker(ABC):
    """Makes the plans of one kind."""

    block_documents = DOCUMENTS_AT_ONCE
    _around = 0
    """places of a sample beside those of each segment's tokens"""

    def __init__(self, read: int, writer: PlanWriter) -> None:
        self._read = read
        self._writer = writer
        self._coverage = Coverage()
        self.documents = 0
        self.selected_tokens = 0
        self.segments = 0
        self.samples = 0

    def make(self, documents: Selection, dataset: IndexedDataset, on_progress: OnProgress) -> None:
        """Writes the arrays.

        Raises:
            Damaged: the dataset is.
        """
        first, end = 0, dataset.number_of_documents
        if isinstance(documents, DocumentRange):
            first, end = documents.first, documents.end
        for block in equal_blocks(documents, self.block_documents):
            found = extents(dataset, block)
            self.documents += len(block)
            self.selected_tokens += int(found.lengths.sum())
            self.add(found.where(found.lengths > 0))
            on_progress(int(block[-1]) + 1 - first, end - first)
        self.finish()

    @abstractmethod
    def add(self, documents: Stretches) -> None:
        """Takes the next documents, none of them empty."""

    def finish(self) -> None:  # noqa: B027  most have nothing to do
        """Writes what was still waiting for more."""

    def counts(self) -> dict[str, Any]:
        """What `PlanFacts` has of this; what is a share of nothing is 0."""
        counts, places = self._counts(), self.samples * self._read
        tokens, distinct = counts["tokens"], counts["distinct_tokens"]
        return {
            **counts,
            "multiplicity": tokens / distinct if distinct else 0.0,
            "padding_share": 1.0 - (tokens + self._around * self.segments) / places if places else 0.0,
        }

    def _counts(self) -> dict[str, Any]:
        """What `PlanFacts` has of this but for what follows from it."""
        return {
            "documents": self.documents,
            "selected_tokens": self.selected_tokens,
            "segments": self.segments,
            "samples": self.samples,
            "tokens": self._coverage.tokens,
            "distinct_tokens": self._coverage.distinct,
            "largest_multiplicity": self._coverage.largest,
            "removed": {},
            "cut": 0,
            "dropped": 0,
            "without_answers": 0,
        }


class SegmentMaker(Maker):
    """Plans of segments."""

    def __init__(self, read: int, writer: PlanWriter, segmenter: Segmenter) -> None:
        super().__init__(read, writer)
        self._segmenter = segmenter
        self._around = segmenter.around

    def _counts(self) -> dict[str, Any]:
        """See `Maker`."""
        left_out = {"removed": self._segmenter.removed, "without_answers": self._segmenter.without_answers}
        return {**super()._counts(), **left_out}


class WindowMaker(SegmentMaker):
    """Windows within documents."""

    def add(self, documents: Stretches) -> None:
        """See `Maker`."""
        windows = self._segmenter.cut(documents).segments
        self._coverage.add(windows)
        self._writer.add(starts=windows.starts, lengths=windows.lengths)
        self.segments += len(windows.starts)
        self.samples = self.segments


class PackMaker(SegmentMaker):
    """Several documents a sample."""

    def __init__(self, section: PacksConfig, read: int, writer: PlanWriter, segmenter: Segmenter) -> None:
        super().__init__(read, writer, segmenter)
        self.block_documents = section.block_documents
        self._longer_are = "dropped" if section.longer == "drop" else "cut"
        writer.add(first_segments=np.zeros(1, dtype=np.int64))

    def add(self, documents: Stretches) -> None:
        """See `Maker`."""
        found = self._segmenter.cut(documents)
        segments, order = found.segments, found.order
        self._coverage.add(segments)
        self._writer.add(
            starts=segments.starts[order],
            lengths=segments.lengths[order],
            first_segments=found.firsts[1:] + self.segments,
        )
        self.segments += len(order)
        self.samples += found.samples

    def _counts(self) -> dict[str, Any]:
        """See `Maker`."""
        return {**super()._counts(), self._longer_are: self._segmenter.longer}


class StreamMaker(Maker):
    """Runs of adjacent documents."""

    def __init__(self, lengths: SampleLengths, writer: PlanWriter) -> None:
        super().__init__(lengths.read, writer)
        self._stride = lengths.stride
        self._waiting = Stretches(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        """the last run, which the next documents may be adjacent to"""
        self._ends = 0
        """tokens of the runs that are written"""

    def add(self, documents: Stretches) -> None:
        """See `Maker`."""
        if not len(documents.starts):
            return
        together = (np.append(before, here) for before, here in zip(self._waiting, documents, strict=True))
        _, runs = merged(Stretches(*together))
        self._write(Stretches(runs.starts[:-1], runs.lengths[:-1]))
        self._waiting = Stretches(runs.starts[-1:], runs.lengths[-1:])

    def _write(self, runs: Stretches) -> None:
        if len(runs.starts):
            ends = np.cumsum(runs.lengths) + self._ends
            self._writer.add(starts=runs.starts, ends=ends)
            self._ends = int(ends[-1])
            self.segments += len(runs.starts)

    def finish(self) -> None:
        """See `Maker`."""
        self._write(self._waiting)
        self.samples = max(0, self.selected_tokens - self._read + self._stride) // self._stride

    def _counts(self) -> dict[str, Any]:
        """See `Maker`. Sample w is the tokens [w * stride, w * stride + read) of the stream."""
        shared = min(self._stride, self._read)
        return {
            **super()._counts(),
            "tokens": self.samples * self._read,
            "distinct_tokens": (self.samples - 1) * shared + self._read if self.samples else 0,
            "largest_multiplicity": min(self.samples, -(-self._read // self._stride)),
        }
