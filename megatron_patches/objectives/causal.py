"""Causal language modelling: every token predicts the next one."""

import torch
from torch import Tensor

from megatron_patches.objectives.micro_batch import MicroBatch


def causal_micro_batch(windows: Tensor, real_rows: int | None = None) -> MicroBatch:
    """Windows of consecutive tokens, int64 `[batch, sequence + 1]`, as inputs, labels and weights of 1.

    Rows from `real_rows` on are padding and weigh nothing.
    """
    weights = torch.ones(windows.shape[0], windows.shape[1] - 1)
    if real_rows is not None:
        weights[real_rows:] = 0
    return MicroBatch(tokens=windows[:, :-1].contiguous(), labels=windows[:, 1:].contiguous(), weights=weights)
