"""What a validation measures: sums over targets, by name, over the same forward passes."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from megatron_patches.objectives.loss import LossFunction, weighted_loss
from megatron_patches.parallel.process_groups import ProcessGroups

Measures = Mapping[str, LossFunction]
"""each gives the sum over tokens of weight x number, a scalar, the same on every tensor-parallel rank"""


def build_measures(groups: ProcessGroups) -> Measures:
    """The negative log-likelihood, without what training adds to it."""
    return {"loss": partial(weighted_loss, groups=groups)}


def measure(measures: Measures, logits: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
    """The measures of a micro-batch, `[names]`; logits and targets as in `weighted_loss`."""
    return torch.stack([each(logits, targets) for each in measures.values()])
