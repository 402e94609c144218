"""How training reads samples: step by step, in two parts."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.blended import Located
from data_tools.samples.source import Sample


class StepSamples(Protocol):
    """What the samples of one step are read from. Several threads may read different steps at a time."""

    def locate(self, places: NDArray[np.int64]) -> Located:
        """Where the samples at these places lie; int64 [n]."""

    def read(self, located: Located) -> list[Sample]:
        """The samples, in order."""

    def hashes(self, places: NDArray[np.int64], located: Located, samples: Sequence[Sample]) -> NDArray[np.uint64]:
        """The number of each sample that was read from these places, uint64 [n]."""


class SamplesByStep(Protocol):
    """The samples of a run by their place in its order.

    Every rank calls `prepare` for the same steps in the same order, so it may talk to the other ranks: in one thread
    that is not the training thread, one call after the other, each before any sample of its step is read. What is
    prepared may never be read (a step that was read ahead and dropped), and the next step need not follow on the last
    one: after a resume, a rollback or a rest any step may come, also one that was prepared before.
    """

    def prepare(self, places: NDArray[np.int64]) -> StepSamples:
        """What a step is read from.

        Args:
            places: those of the whole global batch, in its order; int64 [global batch].
        """

    def rest(self) -> None:
        """Between two calls of `prepare`, while nothing is read: give back what can be had again, such as processes
        and what they hold.
        """
