"""Self-attention; the tensor-parallel ranks share the heads."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from megatron_patches.models.attention.attend import attend
from megatron_patches.models.attention.kernel_choice import choose_kernel
from megatron_patches.models.attention.pattern import AttentionPattern
from megatron_patches.models.attention.segments import Segments
from megatron_patches.models.attention.whole import ScoreBias
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.layers.key_value_cache import CachingAttention
from megatron_patches.models.layers.normalization import build_head_norm
from megatron_patches.models.layers.position import PositionEmbedding
from megatron_patches.models.layers.recomputation import recomputed, replayed
from megatron_patches.models.layers.token_context import TokenContext
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.layers import ColumnParallel, Replicated, RowParallel
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


class SelfAttention(CachingAttention):
    """`[tokens, batch, hidden] -> [tokens, batch, hidden]`.

    Rows of the fused matrix are ordered (head; query, key, value; feature), so that a rank's heads are one slice of it.
    Where heads share keys and values (Ainslie et al. 2023), queries have a matrix of their own, and that of keys and
    values is ordered (group; key, value; feature).
    """

    outside_graphs = ("_attend_replayed", "_attend_recomputed", "_compute_apart")

    def __init__(
        self,
        config: TransformerConfig,
        position: PositionEmbedding,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation,
    ) -> None:
        super().__init__()
        self.heads_here = config.attention_heads // groups.layout.tensor
        self.head_size = config.head_size
        self.grouped = config.groups < config.attention_heads
        self.kernel = choose_kernel(groups, config.head_size)
        self.dropout = config.attention_dropout
        self.drops_apart = groups.layout.tensor > 1
        self.recomputes = recomputation == "selective"
        self.position = position
        self.randomness = randomness
        if self.grouped:
            self._make_grouped(config, groups)
        else:
            fused = config.attention_heads * 3 * config.head_size
            self.query_key_value = ColumnParallel(config.hidden_size, fused, groups, bias=config.attention_bias)
        self.query_norm = build_head_norm(config, groups) if config.query_key_norm else None
        self.key_norm = build_head_norm(config, groups) if config.query_key_norm else None
        self.output = RowParallel(config.hidden_size, config.hidden_size, groups, bias=config.attention_bias)

    def _make_grouped(self, config: TransformerConfig, groups: ProcessGroups) -> None:
        """Matrices of queries and of keys and values; ranks share the groups, or several ranks one group."""
        tensor, bias = groups.layout.tensor, config.attention_bias
        self.query = ColumnParallel(config.hidden_size, config.attention_heads * config.head_size, groups, bias=bias)
        shared = config.groups < tensor
        make = Replicated if shared else ColumnParallel
        self.key_value = make(config.hidden_size, config.groups * 2 * config.head_size, groups, bias=bias)
        first = groups.coordinates.tensor * config.groups // tensor if shared else 0
        self.groups_here = slice(first, first + (1 if shared else config.groups // tensor))

    def forward(self, hidden: Tensor, context: TokenContext) -> Tensor:
        query, key, value = self._project(hidden)
        drops = self.training and self.dropout > 0
        if not (self.recomputes and torch.is_grad_enabled()):
            attended = self._attend(query, key, value, context)
        elif drops and self.drops_apart:
            attended = self._attend_replayed(query, key, value, context)
        elif self._is_apart(context, drops):
            attended = self._attend_recomputed(query, key, value, context, drops)
        else:
            attended = recomputed(self._attend, query, key, value, context, draws=drops)
        return self.output(attended)

    def _is_apart(self, context: TokenContext, drops: bool) -> bool:
        """Whether segments have calls by their length: the lengths change with every micro-batch, and a graph with them
        would be compiled for each."""
        dropout = self.dropout if drops else 0.0
        cut = isinstance(context.pattern, Segments)
        return cut and not self.kernel.takes_segments_whole(self.position.adds_to_scores, dropout)

    def _attend_recomputed(
        self, query: Tensor, key: Tensor, value: Tensor, context: TokenContext, draws: bool
    ) -> Tensor:
        return recomputed(self._attend, query, key, value, context, draws=draws)

    def _attend_replayed(self, query: Tensor, key: Tensor, value: Tensor, context: TokenContext) -> Tensor:
        return replayed(self._attend, query, key, value, context, randomness=self.randomness)

    def _project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each `[batch, its heads here, sequence, feature]`."""
        if not self.grouped:
            fused = self._by_head(self.query_key_value(hidden), self.heads_here, 3)
            query, key, value = fused.permute(3, 1, 2, 0, 4).unbind(0)
            return query, key, value
        query = self._by_head(self.query(hidden), self.heads_here, 1).permute(3, 1, 2, 0, 4)[0]
        fused = self.key_value(hidden)
        groups = fused.shape[-1] // (2 * self.head_size)
        fused = self._by_head(fused, groups, 2)[:, :, self.groups_here]
        key, value = fused.permute(3, 1, 2, 0, 4).unbind(0)
        return query, key, value

    def _by_head(self, features: Tensor, heads: int, matrices: int) -> Tensor:
        sequence, batch, _ = features.shape
        return features.view(sequence, batch, heads, matrices, self.head_size)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, context: TokenContext) -> Tensor:
        """`[sequence, batch, features here]`."""
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = self.position.queries_and_keys(query, key, context)
        places = None
        if self.cache is not None:
            key, value = self.cache.extend(key, value)
            places = self.cache.current.places
        bias = self.position.score_bias(query, key, context, places)
        dropout = self.dropout if self.training else 0.0
        compute = self._compute_apart if self._is_apart(context, dropout > 0) else self._compute
        return compute(query, key, value, context.pattern, bias, dropout).permute(2, 0, 1, 3).flatten(2)

    def _compute_apart(self, *inputs: Any) -> Tensor:
        """`_compute` under a name of its own, which is kept out of graphs."""
        return self._compute(*inputs)

    def _compute(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pattern: AttentionPattern,
        bias: ScoreBias | None,
        dropout: float,
    ) -> Tensor:
        """`[batch, heads here, sequence, feature]`."""
        with self.randomness.split_features() if dropout > 0 and self.drops_apart else nullcontext():
            return attend(query, key, value, pattern, bias=bias, dropout=dropout, kernel=self.kernel)
