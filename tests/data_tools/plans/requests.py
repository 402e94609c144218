"""What tests ask for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.plans.planned_samples import PlannedSamples
from data_tools.plans.plans import PlanRequest, make_plan
from data_tools.plans.samples_config import SAMPLES
from data_tools.plans.segmenting import Answers
from data_tools.plans.wrapping import Wrapping
from data_tools.samples.lengths import SampleLengths

DATASET_ID = "d" * 64


@dataclass(frozen=True)
class Chosen:
    """Documents one by one, given a few at a time."""

    documents: tuple[int, ...]
    at_once: int = 3

    @property
    def name(self) -> str:
        return f"chosen {self.documents}"

    def blocks(self, size: int) -> Iterator[NDArray[np.int64]]:
        step = min(size, self.at_once)
        for first in range(0, len(self.documents), step):
            yield np.array(self.documents[first : first + step], dtype=np.int64)


def lengths_of(read: int, stride: int | None = None) -> SampleLengths:
    """Of next-token prediction, unless samples are at another distance."""
    return SampleLengths(read, stride or read - 1, (("tokens", read - 1),), read - 1)


def request_of(
    prefix: Path,
    samples: Any,
    read: int = 8,
    documents: Selection | None = None,
    tokenizer: Path | None = None,
    dataset_id: str = DATASET_ID,
    wrapping: Wrapping | None = None,
) -> PlanRequest:
    """Of all documents, where none are chosen."""
    chosen = documents or DocumentRange(0, IndexedDataset(prefix).number_of_documents)
    return PlanRequest(prefix, dataset_id, chosen, SAMPLES.validate(samples), lengths_of(read), tokenizer, wrapping)


def plan_of(prefix: Path, samples: Any, read: int = 8, answers: Answers | None = None, **more: Any) -> PlannedSamples:
    """Made now."""
    request = request_of(prefix, samples, read, **more)
    return make_plan(request, IndexedDataset(prefix), lambda done, total: None, answers)


def texts_of(samples: PlannedSamples) -> list[list[list[int]]]:
    """The tokens of each segment of each sample, after a look at its form."""
    found = []
    for item in (samples[number] for number in range(len(samples))):
        tokens, segments = item["tokens"], item["segments"]
        assert tokens.dtype == segments.dtype == np.int64
        assert tokens.shape == segments.shape == (samples.facts.read,)
        count = int(np.count_nonzero(segments >= 0))
        assert (segments[count:] == -1).all() and (tokens[count:] == 0).all()
        assert (np.diff(segments[:count]) >= 0).all()
        found.append([tokens[segments == number].tolist() for number in range(int(segments.max()) + 1)])
    return found
