"""Two stacks as a list of layers; the only file of them that imports torch beside `objective.py`.

Behind the encoder the stream is one tensor, its output and the decoder's hidden states one after the other: DeepSpeed's
pipeline takes one float. Tensor-parallel ranks that share the tokens hold their share of each of the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.attention.attend import attend
from megatron_patches.models.attention.kernel_choice import choose_kernel
from megatron_patches.models.attention.pattern import CAUSAL, FULL, AttentionPattern
from megatron_patches.models.attention.whole import ScoreBias
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.interface.layer_spec import HIDDEN, LOGITS, LayerSpec
from megatron_patches.models.layers.compilation import CompiledInParts
from megatron_patches.models.layers.dropout import FeatureDropout
from megatron_patches.models.layers.normalization import LayerNorm
from megatron_patches.models.layers.recomputation import recomputed, replayed
from megatron_patches.parallel.layers import ColumnParallel, ParallelEmbedding, RowParallel
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from tests.second_architecture.config import DECODER_TOKENS, ENCODER_TOKENS, TwoStacksConfig


@dataclass(frozen=True)
class Parts:
    """What the layers of one rank are made from."""

    model: TwoStacksConfig
    lengths: SampleLengths
    groups: ProcessGroups
    randomness: StepRandomness
    recomputation: Recomputation

    @property
    def encoder_here(self) -> int:
        """Places of the encoder that this rank holds between two matrices."""
        layout = self.groups.layout
        return self.lengths.of("encoder") // (layout.tensor if layout.sequence_parallel else 1)

    def norm(self) -> LayerNorm:
        """Of either stream."""
        return LayerNorm(self.model.width, 1e-5, self.groups.dtype, bias=False)


class Shelf:
    """Where the table of distances leaves its bias for the block behind it, which is on the same stage."""

    bias: Tensor


class Embedding(nn.Module):
    """Of the encoder's tokens, of the decoder's, and the head's matrix."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.tokens = ParallelEmbedding(parts.model.vocab_size, parts.model.width, parts.groups)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids)


class RelativeBias(nn.Module):
    """A number for each head here and each distance: `[1, heads here, queries, keys]`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        heads, buckets = parts.model.heads // parts.groups.layout.tensor, parts.model.buckets
        self.weight = nn.Parameter(torch.empty((heads, buckets), dtype=parts.groups.dtype))
        self.positions = parts.lengths.of("encoder")

    def forward(self) -> Tensor:
        buckets = self.weight.shape[1]
        positions = torch.arange(self.positions, device=self.weight.device)
        distances = positions - positions[:, None] + buckets // 2
        return self.weight[:, distances.clamp(0, buckets - 1)][None]


class Attention(nn.Module):
    """Queries of one stream, keys and values of the same or of another; all `[positions here, batch, width]`."""

    def __init__(self, parts: Parts, pattern: AttentionPattern) -> None:
        super().__init__()
        width, groups = parts.model.width, parts.groups
        self.pattern = pattern
        self.kernel = choose_kernel(groups, parts.model.head_size)
        self.head_size = parts.model.head_size
        self.recomputes = parts.recomputation == "selective"
        self.query = ColumnParallel(width, width, groups, bias=False)
        self.key_value = ColumnParallel(width, 2 * width, groups, bias=False)
        self.output = RowParallel(width, width, groups, bias=False)

    def forward(self, hidden: Tensor, read: Tensor, bias: Tensor | None = None) -> Tensor:
        queries, fused = self.query(hidden), self.key_value(read)
        if self.recomputes and torch.is_grad_enabled():
            return self.output(recomputed(self._attend, queries, fused, bias, draws=False))
        return self.output(self._attend(queries, fused, bias))

    def _attend(self, queries: Tensor, fused: Tensor, bias: Tensor | None) -> Tensor:
        query = queries.unflatten(-1, (-1, self.head_size)).permute(1, 2, 0, 3)
        key, value = fused.unflatten(-1, (-1, 2, self.head_size)).permute(3, 1, 2, 0, 4).unbind(0)
        added = None if bias is None else ScoreBias(bias)
        attended = attend(query, key, value, self.pattern, bias=added, kernel=self.kernel)
        return attended.permute(2, 0, 1, 3).flatten(2)


class MLP(nn.Module):
    """`[positions here, batch, width]` -> the same."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.up = ColumnParallel(parts.model.width, parts.model.features, parts.groups)
        self.down = RowParallel(parts.model.features, parts.model.width, parts.groups)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down(F.relu(self.up(hidden)))


class Block(CompiledInParts):
    """What the blocks of both stacks have in common."""

    def __init__(self, parts: Parts, pattern: AttentionPattern) -> None:
        super().__init__()
        self.attention_norm, self.attention = parts.norm(), Attention(parts, pattern)
        self.mlp_norm, self.mlp = parts.norm(), MLP(parts)
        self.dropout = FeatureDropout(parts.model.dropout, parts.groups, parts.randomness)
        self.recomputes = parts.recomputation == "full"
        self.randomness = parts.randomness

    def forward(self, hidden: Tensor, *inputs: Tensor) -> Tensor:
        if not (self.recomputes and torch.is_grad_enabled()):
            return self.compute(hidden, *inputs)
        draws = self.training and self.dropout.share > 0
        if draws and self.dropout.apart:
            return replayed(self.compute, hidden, *inputs, randomness=self.randomness)
        return recomputed(self.compute, hidden, *inputs, draws=draws)


class EncoderBlock(Block):
    """`(encoder's hidden states, bias of distances)` -> hidden states."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, FULL)

    def compute(self, hidden: Tensor, bias: Tensor) -> Tensor:
        normed = self.attention_norm(hidden)
        hidden = hidden + self.dropout(self.attention(normed, normed, bias))
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))


class DecoderBlock(Block):
    """Both streams one after the other -> the same, the encoder's unchanged."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, CAUSAL)
        self.cross_attention_norm, self.cross_attention = parts.norm(), Attention(parts, FULL)
        self.encoder_here = parts.encoder_here

    def compute(self, packed: Tensor) -> Tensor:
        encoded, hidden = packed[: self.encoder_here], packed[self.encoder_here :]
        normed = self.attention_norm(hidden)
        hidden = hidden + self.dropout(self.attention(normed, normed))
        hidden = hidden + self.dropout(self.cross_attention(self.cross_attention_norm(hidden), encoded))
        return torch.cat((encoded, hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))))


def two_stacks_layers(parts: Parts) -> list[LayerSpec]:
    """First to last; nothing is built yet."""
    decoder = [
        LayerSpec(f"decoder.layers.{number}", partial(DecoderBlock, parts))
        for number in range(parts.model.decoder_blocks)
    ]
    start, bridge, head = _embeddings(parts)
    return [
        start,
        *_dropout("encoder_dropout", parts),
        *_encoder(parts),
        LayerSpec("encoder_norm", parts.norm),
        bridge,
        *decoder,
        LayerSpec("decoder_norm", parts.norm, forward=lambda norm, packed: norm(packed[parts.encoder_here :])),
        head,
    ]


def _embeddings(parts: Parts) -> tuple[LayerSpec, LayerSpec, LayerSpec]:
    """One table in three positions: in front of the encoder, between the stacks, and as the head."""

    def bridge(embedding: nn.Module, encoded: Tensor, ids: Tensor) -> Tensor:
        return torch.cat((encoded, embedding(ids)))

    def head(embedding: nn.Module, hidden: Tensor) -> Tensor:
        assert isinstance(embedding, Embedding)
        return embedding.tokens.logits(hidden)

    embedding = partial(LayerSpec, "embedding", partial(Embedding, parts), shared_weight="tokens.table.weight")
    return (
        embedding(reads=(ENCODER_TOKENS.name,)),
        embedding(reads=(HIDDEN.name, DECODER_TOKENS.name), forward=bridge),
        embedding(writes=LOGITS, forward=head),
    )


def _encoder(parts: Parts) -> Iterator[LayerSpec]:
    """In front of each block the table, which changes nothing of the stream."""
    shelf = Shelf()

    def leave_bias(table: nn.Module, hidden: Tensor) -> Tensor:
        shelf.bias = table()
        return hidden

    def with_bias(block: nn.Module, hidden: Tensor) -> Tensor:
        output: Tensor = block(hidden, shelf.bias)
        return output

    for number in range(parts.model.encoder_blocks):
        yield LayerSpec("relative_bias", partial(RelativeBias, parts), shared_weight="weight", forward=leave_bias)
        yield LayerSpec(f"encoder.layers.{number}", partial(EncoderBlock, parts), forward=with_bias)


def _dropout(name: str, parts: Parts) -> Iterator[LayerSpec]:
    if parts.model.dropout > 0:
        yield LayerSpec(name, lambda: FeatureDropout(parts.model.dropout, parts.groups, parts.randomness))
