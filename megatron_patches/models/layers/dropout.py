"""Dropout of the residual stream."""

from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


class FeatureDropout(nn.Module):
    """`[tokens, batch, hidden]` -> the same.

    Tensor-parallel ranks that hold the same tokens drop alike; under sequence parallelism each holds others.
    """

    def __init__(self, share: float, groups: ProcessGroups, randomness: StepRandomness) -> None:
        super().__init__()
        self.share = share
        self.apart = groups.layout.sequence_parallel
        self.randomness = randomness

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return hidden
        with self.randomness.split_features() if self.apart else nullcontext():
            return F.dropout(hidden, self.share)
