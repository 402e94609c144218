"""What one forward pass reads."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one forward pass.

    `tokens` and `labels` are int64 `[batch, sequence]`; `weights` is fp32 `[batch, sequence]`: how much each label
    counts, 0 for positions without a target (their label is any valid id).
    """

    tokens: Tensor
    labels: Tensor
    weights: Tensor
