"""Causal self-attention; the tensor-parallel ranks share the heads."""

from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.position import PositionEmbedding
from megatron_patches.parallel.layers import SplitInput, SplitOutput
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


class CausalSelfAttention(nn.Module):
    """`[sequence, batch, hidden] -> [sequence, batch, hidden]`.

    Rows of the fused matrix are ordered (head; query, key, value; feature), so that a rank's heads are one slice of it.
    """

    def __init__(
        self,
        config: ModelConfig,
        position: PositionEmbedding,
        groups: ProcessGroups,
        randomness: StepRandomness,
        residual_deviation: float,
    ) -> None:
        super().__init__()
        self.heads_here = config.attention_heads // groups.layout.tensor
        self.head_size = config.hidden_size // config.attention_heads
        self.dropout = config.attention_dropout
        self.position = position
        self.randomness = randomness
        self.query_key_value = SplitOutput(
            config.hidden_size, 3 * config.hidden_size, groups, deviation=config.init_std
        )
        self.output = SplitInput(config.hidden_size, config.hidden_size, groups, deviation=residual_deviation)

    def forward(self, hidden: Tensor) -> Tensor:
        sequence, batch, _ = hidden.shape
        fused = self.query_key_value(hidden).view(sequence, batch, self.heads_here, 3, self.head_size)
        query, key, value = fused.permute(3, 1, 2, 0, 4).unbind(0)  # each [batch, heads, sequence, feature]
        attended = self._attend(query, key, value)
        return self.output(attended.permute(2, 0, 1, 3).reshape(sequence, batch, -1))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = self.position.queries_and_keys(query, key)
        bias = self.position.score_bias(query)
        dropout = self.dropout if self.training else 0.0
        with self.randomness.split_features() if dropout > 0 else nullcontext():
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, dropout_p=dropout, is_causal=bias is None
            )
