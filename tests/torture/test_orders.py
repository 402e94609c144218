"""The short form of `python -m tests.torture.orders`, and whether it would notice anything."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blended import BlendStages
from data_tools.samples.skipping import SkippedSamples
from tests.torture.orders import torture


def test_a_thousand_histories_read_what_uninterrupted_runs_read() -> None:
    told = torture(rounds=1000, seed=0)
    assert told.problems == []
    assert told.launches > 2000 and told.trained_again > 1000


def _another_rank(sampler: Any, consumed: int, real: Callable[..., Any]) -> Any:
    """The last rank reads what the first one should."""
    last = sampler._rank == sampler._shape[1] - 1
    sampler._rank, rank = 0 if last else sampler._rank, sampler._rank
    found = real(sampler, consumed)
    sampler._rank = rank
    return found


def _one_too_many(skipped: Any, trained: NDArray[np.int64], real: Callable[..., Any]) -> Any:
    """A range that is left out ends a sample late."""
    places = real(skipped, trained)
    return places + (places > skipped.ranges[0][1]) if skipped.ranges else places


def _source_begins_again(stages: Any, places: NDArray[np.int64], real: Callable[..., Any]) -> Any:
    """A source begins with its first sample in each stage, in launches that know of one stage less."""
    source, index = real(stages, places)
    return (source, index) if len(stages.stages) > 1 else (source, index + 1)


@pytest.mark.parametrize(
    ("owner", "method", "mistake"),
    [
        (BatchSampler, "micro_batches", _another_rank),
        (SkippedSamples, "places", _one_too_many),
        (BlendStages, "indices", _source_begins_again),
    ],
)
def test_mistakes_are_found(
    owner: type, method: str, mistake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda self, argument: mistake(self, argument, real))
    assert torture(rounds=30, seed=0).problems
