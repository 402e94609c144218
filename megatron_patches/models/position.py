"""Position embeddings: layers that follow the token embedding, by the name a run gives them.

A new one that adds to the residual stream is a class here and an entry in POSITION_LAYERS; one that acts inside
attention takes None here and is applied in attention.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.parallel.parameters import ParameterInfo, describe
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.tensor_slice import TensorSlice


class LearnedPositions(nn.Module):
    """Adds a learned vector for each place: `[sequence, batch, hidden]` -> the same."""

    def __init__(self, config: ModelConfig, sequence_length: int, groups: ProcessGroups) -> None:
        super().__init__()
        shape = (sequence_length, config.hidden_size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=groups.dtype))
        describe(self.weight, ParameterInfo(TensorSlice.whole(shape), "normal", config.init_std))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.weight[: hidden.shape[0], None]


POSITION_LAYERS: dict[str, Callable[[ModelConfig, int, ProcessGroups], nn.Module] | None] = {
    "learned": LearnedPositions,
    "none": None,
}
