"""Position embeddings. A kind is a class here, with the hooks it needs, and its keys in `position_config.py`.

A hook that a kind leaves alone does nothing: embedding and attention call all of them.
"""

import torch
from torch import Tensor, nn

from megatron_patches.models.position_config import LearnedPositionConfig, PositionConfig
from megatron_patches.parallel.parameters import ParameterInfo, describe
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.tensor_slice import TensorSlice


class PositionEmbedding:
    """What a kind may do. It holds no weights; a layer that does is made by `stream_layer`."""

    def stream_layer(self) -> nn.Module | None:
        """A layer behind the token embedding, `[sequence, batch, hidden]` -> the same; None if the kind has none."""
        return None

    def queries_and_keys(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as attention compares them; `[batch, heads here, sequence, feature]`."""
        return query, key

    def score_bias(self, query: Tensor) -> Tensor | None:
        """What is added to the scores, causal mask included, `[heads here, sequence, sequence]`; None for nothing."""
        return None


class LearnedPositions(PositionEmbedding):
    """A table with a row for each place."""

    def __init__(self, hidden_size: int, deviation: float, sequence_length: int, groups: ProcessGroups) -> None:
        self._table = (hidden_size, deviation, sequence_length, groups)

    def stream_layer(self) -> nn.Module:
        return PositionTable(*self._table)


class PositionTable(nn.Module):
    """Adds a learned vector for each place: `[sequence, batch, hidden]` -> the same."""

    def __init__(self, hidden_size: int, deviation: float, sequence_length: int, groups: ProcessGroups) -> None:
        super().__init__()
        shape = (sequence_length, hidden_size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=groups.dtype))
        describe(self.weight, ParameterInfo(TensorSlice.whole(shape), "normal", deviation))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.weight[: hidden.shape[0], None]


def build_position_embedding(
    config: PositionConfig, hidden_size: int, deviation: float, sequence_length: int, groups: ProcessGroups
) -> PositionEmbedding:
    """The kind that a run names."""
    if isinstance(config, LearnedPositionConfig):
        return LearnedPositions(hidden_size, deviation, sequence_length, groups)
    return PositionEmbedding()
