"""A transformer block: attention, MLP and the residual stream around them."""

import torch
from torch import Tensor

from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.layers.attention import SelfAttention
from megatron_patches.models.layers.compilation import CompiledInParts
from megatron_patches.models.layers.dropout import FeatureDropout
from megatron_patches.models.layers.mlp import MLP
from megatron_patches.models.layers.normalization import build_stream_norm
from megatron_patches.models.layers.position import PositionEmbedding
from megatron_patches.models.layers.recomputation import recomputed, replayed
from megatron_patches.models.layers.token_context import TokenContext
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


class Block(CompiledInParts):
    """`[tokens, batch, hidden]` -> the same.

    Pre-norm: each sub-layer reads a normalised copy of the stream and adds to it, one after the other, or both at once
    (`parallel_residual`; Wang and Komatsuzaki 2021, with a norm of its own for each as in GPT-NeoX). Post-norm: the
    stream itself is normalised behind each sum (Vaswani et al. 2017).
    """

    def __init__(
        self,
        config: TransformerConfig,
        position: PositionEmbedding,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation,
    ) -> None:
        super().__init__()
        self.attention_norm = build_stream_norm(config, groups)
        self.attention = SelfAttention(config, position, groups, randomness, recomputation)
        self.mlp_norm = build_stream_norm(config, groups)
        self.mlp = MLP(config, groups, recomputation)
        self.dropout = FeatureDropout(config.hidden_dropout, groups, randomness)
        self.post_norm = config.norm_placement == "post"
        self.parallel = config.parallel_residual
        self.recomputes = recomputation == "full"
        self.drops = max(config.hidden_dropout, config.attention_dropout) > 0
        self.drops_apart = groups.layout.tensor > 1
        self.randomness = randomness

    def forward(self, hidden: Tensor, context: TokenContext) -> Tensor:
        drops = self.training and self.drops
        if not (self.recomputes and torch.is_grad_enabled()):
            return self.compute(hidden, context)
        if drops and self.drops_apart:
            return replayed(self.compute, hidden, context, randomness=self.randomness)
        return recomputed(self.compute, hidden, context, draws=drops)

    def compute(self, hidden: Tensor, context: TokenContext) -> Tensor:
        """The block itself, which keeps what its backward pass needs; `compile_blocks` compiles it."""
        if self.post_norm:
            hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, context)))
            return self.mlp_norm(hidden + self.dropout(self.mlp(hidden)))
        attended = self.dropout(self.attention(self.attention_norm(hidden), context))
        if self.parallel:
            return hidden + attended + self.dropout(self.mlp(self.mlp_norm(hidden)))
        hidden = hidden + attended
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))
