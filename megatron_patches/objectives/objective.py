"""What makes the batches of an objective."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch


class Objective(Protocol):
    """What samples ask the model to predict."""

    def __call__(self, items: Mapping[str, Tensor], samples: NDArray[np.int64]) -> MicroBatch:
        """A pure function of the items and the numbers of their samples, so that every layout and resume agrees.

        `items` are the samples' arrays by name, stacked: `tokens` is int64 `[batch, read]` (`SampleLengths.read`).
        `samples`, int64 `[batch]`, are counted from the start of the run, or of the validation source. The inputs of
        the result are the fields that the section declares.
        """

    @property
    def for_validation(self) -> "Objective":
        """The same for the samples of a validation, whose numbers say nothing of how far the run is."""
        return self
