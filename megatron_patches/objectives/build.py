"""The objective of a run."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.objectives.causal import Causal
from megatron_patches.objectives.micro_batch import MicroBatch
from megatron_patches.objectives.objective_config import CausalConfig, ObjectiveConfig
from megatron_patches.objectives.prefix_lm import PrefixLM


class Objective(Protocol):
    """What samples ask the model to predict."""

    def __call__(self, windows: Tensor, samples: NDArray[np.int64]) -> MicroBatch:
        """A pure function of the tokens and the numbers of their samples, so that every layout and resume agrees.

        `windows` are consecutive tokens, int64 `[batch, sequence + 1]`; `samples` int64 `[batch]` are counted from the
        start of the run, or of the validation split.
        """


def build_objective(config: ObjectiveConfig, seed: int, end_of_document: int | None) -> Objective:
    """`end_of_document` is the token that ends documents: None where the configuration does not read it."""
    assert end_of_document is not None or not config.reads_document_ends
    if isinstance(config, CausalConfig):
        return Causal(config, end_of_document)
    return PrefixLM(config, seed, end_of_document)
