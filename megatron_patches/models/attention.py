"""Self-attention; the tensor-parallel ranks share the heads."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.normalization import build_head_norm
from megatron_patches.models.position import PositionEmbedding
from megatron_patches.models.recomputation import Recomputation, recomputed, replayed
from megatron_patches.objectives.micro_batch import PLAIN_CONTEXT, TokenContext
from megatron_patches.parallel.attention_kernels import only
from megatron_patches.parallel.layers import SplitInput, SplitOutput, WholeOutput
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


class SelfAttention(nn.Module):
    """`[tokens, batch, hidden] -> [tokens, batch, hidden]`.

    Rows of the fused matrix are ordered (head; query, key, value; feature), so that a rank's heads are one slice of it.
    Where heads share keys and values (Ainslie et al. 2023), queries have a matrix of their own, and that of keys and
    values is ordered (group; key, value; feature).
    """

    outside_graphs = ("_attend_replayed",)

    def __init__(
        self,
        config: ModelConfig,
        position: PositionEmbedding,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation,
    ) -> None:
        super().__init__()
        self.heads_here = config.attention_heads // groups.layout.tensor
        self.head_size = config.head_size
        self.grouped = config.groups < config.attention_heads
        self.shares_keys = takes_shared_keys(groups)
        self.kernel = groups.kernels.attention
        self.dropout = config.attention_dropout
        self.drops_apart = groups.layout.tensor > 1
        self.recomputes = recomputation == "selective"
        self.position = position
        self.randomness = randomness
        if self.grouped:
            self._make_grouped(config, groups)
        else:
            self.query_key_value = SplitOutput(
                config.hidden_size, (config.attention_heads, 3, config.head_size), groups,
                deviation=config.deviation, bias=config.attention_bias, stack=1,
            )  # fmt: skip
        self.query_norm = build_head_norm(config, groups) if config.query_key_norm else None
        self.key_norm = build_head_norm(config, groups) if config.query_key_norm else None
        self.output = SplitInput(
            config.hidden_size, config.hidden_size, groups,
            deviation=config.residual_deviation, bias=config.attention_bias,
        )  # fmt: skip

    def _make_grouped(self, config: ModelConfig, groups: ProcessGroups) -> None:
        """Matrices of queries and of keys and values; ranks share the groups, or several ranks one group."""
        tensor, bias, deviation = groups.layout.tensor, config.attention_bias, config.deviation
        self.query = SplitOutput(
            config.hidden_size, (config.attention_heads, config.head_size), groups, deviation=deviation, bias=bias
        )
        shared = config.groups < tensor
        make = WholeOutput if shared else SplitOutput
        self.key_value = make(
            config.hidden_size, (config.groups, 2, config.head_size), groups, deviation=deviation, bias=bias, stack=1
        )
        first = groups.coordinates.tensor * config.groups // tensor if shared else 0
        self.groups_here = slice(first, first + (1 if shared else config.groups // tensor))

    def forward(self, hidden: Tensor, context: TokenContext = PLAIN_CONTEXT) -> Tensor:
        query, key, value = self._project(hidden)
        drops = self.training and self.dropout > 0
        if not (self.recomputes and torch.is_grad_enabled()):
            attended = self._attend(query, key, value, context)
        elif drops and self.drops_apart:
            attended = self._attend_replayed(query, key, value, context)
        else:
            attended = recomputed(self._attend, query, key, value, context, draws=drops)
        return self.output(attended)

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
        mask = score_mask(self.position, context.visible, query)
        repeats = query.shape[1] // key.shape[1]
        shares = mask is None and self.shares_keys
        if repeats > 1 and not shares:
            key, value = (heads.repeat_interleave(repeats, dim=1) for heads in (key, value))
        dropout = self.dropout if self.training else 0.0
        apart = self.randomness.split_features() if dropout > 0 and self.drops_apart else nullcontext()
        with apart, only(self.kernel):
            attended = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None,
                enable_gqa=shares and repeats > 1,
            )  # fmt: skip
        return attended.permute(2, 0, 1, 3).flatten(2)


def takes_shared_keys(groups: ProcessGroups) -> bool:
    """Whether `scaled_dot_product_attention`, without a mask, is at its best with fewer keys than queries.

    On CUDA its flash kernel alone takes them: in 16 bits, from compute capability 8 on. The memory-efficient kernel,
    the one for fp32 and for a V100, and any that is given a mask, wants as many keys as queries: else all scores are
    written out. Of cuDNN's it is not known here.
    """
    if groups.device.type != "cuda":
        return True
    if groups.kernels.attention in ("cudnn", "efficient"):
        return False
    return groups.dtype != torch.float32 and torch.cuda.get_device_capability(groups.device) >= (8, 0)


def score_mask(position: PositionEmbedding, visible: Tensor | None, query: Tensor) -> Tensor | None:
    """What `scaled_dot_product_attention` adds to the scores, or a boolean mask; None for its own causal one.

    `visible` is int64 `[batch, sequence, 2]` (see `TokenContext`). The result has four dimensions: of any other number
    the fused kernels take none.
    """
    if visible is None:
        return position.causal_bias(query)
    keys = torch.arange(query.shape[-2], device=query.device)
    start, stop = visible[:, None, :, None, 0], visible[:, None, :, None, 1]
    seen = (start <= keys) & (keys < stop)
    bias = position.score_bias(query)
    return seen if bias is None else bias.masked_fill(~seen, -torch.inf)
