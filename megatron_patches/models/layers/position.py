"""Position embeddings. A kind is a class here, with the hooks it needs, and its keys in `position_config.py`.

A hook that a kind leaves alone does nothing: embedding and attention call all of them.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from megatron_patches.batch.fields import AttentionKind
from megatron_patches.models.attention.pattern import AttentionPattern, Causal, Full
from megatron_patches.models.attention.segments import Segments
from megatron_patches.models.attention.whole import ScoreBias
from megatron_patches.models.layers.position_config import (
    AlibiPositionConfig,
    LearnedPositionConfig,
    RotaryPositionConfig,
)
from megatron_patches.models.layers.token_context import TokenContext
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.process_groups import ProcessGroups


class PositionEmbedding:
    """What a kind may do. It holds no weights; a layer that does is made by what `stream_layer` returns."""

    adds_to_scores = False
    """whether `score_bias` gives something"""

    def stream_layer(self) -> Callable[[], nn.Module] | None:
        """What builds a layer behind the token embedding, `([tokens, batch, hidden], context)` -> the same; or None."""
        return None

    def queries_and_keys(self, query: Tensor, key: Tensor, context: TokenContext) -> tuple[Tensor, Tensor]:
        """Queries and keys as attention compares them; each `[batch, its heads here, sequence, feature]`."""
        return query, key

    def score_bias(
        self, query: Tensor, key: Tensor, context: TokenContext, places: Tensor | None = None
    ) -> ScoreBias | None:
        """What is added to the scores, `[1 or batch, heads here, queries, keys]`; None for nothing.

        `places` are those of the queries among the keys, int64 `[batch, queries]`; None: they are the same tokens.
        """
        return None


class LearnedPositions(PositionEmbedding):
    """A table with a row for each position."""

    def __init__(self, config: TransformerConfig, positions: int, groups: ProcessGroups) -> None:
        self._table = (config, positions, groups)

    def stream_layer(self) -> Callable[[], nn.Module]:
        return partial(PositionTable, *self._table)


class PositionTable(nn.Module):
    """Adds a learned vector for each position: `[tokens, batch, hidden]` -> the same."""

    def __init__(self, config: TransformerConfig, positions: int, groups: ProcessGroups) -> None:
        super().__init__()
        self.first_share = groups.coordinates.tensor if groups.layout.sequence_parallel else 0
        self.weight = nn.Parameter(torch.empty((positions, config.hidden_size), dtype=groups.dtype))

    def forward(self, hidden: Tensor, context: TokenContext) -> Tensor:
        tokens = hidden.shape[0]
        here = slice(self.first_share * tokens, (self.first_share + 1) * tokens)
        if context.positions is None:
            return hidden + self.weight[here, None]
        return hidden + self.weight[context.positions[:, here].t()]


class RotaryPositions(PositionEmbedding):
    """Pairs of features are turned by position x theta^(-2i / turned features) (Su et al. 2021, section 3.2.2)."""

    def __init__(self, config: RotaryPositionConfig, head_size: int) -> None:
        self.turned = config.rotated_features(head_size)
        self.theta = config.theta
        self.interleaved = config.pairs == "interleaved"

    def queries_and_keys(self, query: Tensor, key: Tensor, context: TokenContext) -> tuple[Tensor, Tensor]:
        angles = self._angles(query, context)
        # Angles need fp32: a position of 2,047 is 2,048 in bf16. Their cosines do not.
        cosine, sine = angles.cos().to(query.dtype), angles.sin().to(query.dtype)
        return self._turn(query, cosine, sine), self._turn(key, cosine, sine)

    def _angles(self, query: Tensor, context: TokenContext) -> Tensor:
        """fp32 `[batch or 1, 1, sequence, pairs]`."""
        exponents = torch.arange(0, self.turned, 2, device=query.device, dtype=torch.float32) / self.turned
        positions = context.positions
        if positions is None:
            positions = torch.arange(query.shape[-2], device=query.device)[None]
        return positions[:, None, :, None].float() * self.theta**-exponents

    def _turn(self, features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        turned, kept = features[..., : self.turned], features[..., self.turned :]
        if self.interleaved:
            first, second = turned[..., 0::2], turned[..., 1::2]
        else:
            first, second = turned.chunk(2, dim=-1)
        pair = (first * cosine - second * sine, second * cosine + first * sine)
        joined = torch.stack(pair, dim=-1).flatten(-2) if self.interleaved else torch.cat(pair, dim=-1)
        return torch.cat((joined, kept), dim=-1) if kept.shape[-1] else joined


class AlibiPositions(PositionEmbedding):
    """Scores fall linearly with the distance (Press et al. 2022); tensor-parallel ranks take their heads' slopes.

    The distance counts both ways: in a prefix, where keys behind the query are visible, they count less and less too.
    """

    adds_to_scores = True

    def __init__(self, heads: int, positions: int, attention: AttentionKind, groups: ProcessGroups) -> None:
        """`attention` is what the tokens of samples see: its bias is held."""
        heads_here = heads // groups.layout.tensor
        first = groups.coordinates.tensor * heads_here
        here = alibi_slopes(heads)[first : first + heads_here]
        # once, and not in each forward pass: a copy to the device would make the host wait
        self.slopes = torch.tensor(here, dtype=torch.float32, device=groups.device)
        # Held for the whole run: 16 heads of 2048 x 2048 in 16 bits are 134 MB, and each layer would keep its own.
        # Where tokens see other ranges the sum depends on the micro-batch, and each layer makes it.
        self._holds_causal = attention in ("causal", "causal_documents")
        self._held = None if attention == "ranges" else self._bias(positions, groups.dtype)
        if self._held is not None and self._holds_causal:
            numbers = torch.arange(positions, device=groups.device)
            self._held.masked_fill_(numbers > numbers[:, None], -torch.inf)

    def score_bias(self, query: Tensor, key: Tensor, context: TokenContext, places: Tensor | None = None) -> ScoreBias:
        pattern, tokens = context.pattern, key.shape[-2]
        if places is None and self._held is not None and self._is_of(pattern):
            return ScoreBias(self._held[..., :tokens, :tokens], hides=True)
        return ScoreBias(self._bias(tokens, query.dtype, places))

    def _is_of(self, pattern: AttentionPattern) -> bool:
        """Whether what is held is the bias of this pattern; of segments it is that of the longest."""
        if isinstance(pattern, Segments):
            return pattern.causal == self._holds_causal
        return isinstance(pattern, Causal if self._holds_causal else Full)

    def _bias(self, keys: int, dtype: torch.dtype, places: Tensor | None = None) -> Tensor:
        """Of queries at these places; None: at those of the keys."""
        positions = torch.arange(keys, device=self.slopes.device, dtype=torch.float32)
        queries = positions[None] if places is None else places.float()
        # Made in fp32 and rounded once; in bf16 the positions themselves would be rounded from 257 on.
        return (-self.slopes[:, None, None] * (positions - queries[:, None, :, None]).abs()).to(dtype)


def alibi_slopes(heads: int) -> list[float]:
    """Slopes of all heads: 2^(-8/n), 2^(-16/n), ... for n heads (Press et al. 2022, section 3).

    For n that is no power of two, those of the power of two below come first, and then every other one of twice that
    power: the authors' rule for such n, which BLOOM's 112 heads follow.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return slopes + [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * (heads - power), 2)]


def build_position_embedding(
    config: TransformerConfig, positions: int, attention: AttentionKind, groups: ProcessGroups
) -> PositionEmbedding:
    """The position embedding that a run names, for samples with this number of positions and this kind of attention."""
    kind = config.position_embedding
    if isinstance(kind, LearnedPositionConfig):
        return LearnedPositions(config, positions, groups)
    if isinstance(kind, RotaryPositionConfig):
        return RotaryPositions(kind, config.head_size)
    if isinstance(kind, AlibiPositionConfig):
        return AlibiPositions(config.attention_heads, positions, attention, groups)
    return PositionEmbedding()
