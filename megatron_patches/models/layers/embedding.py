"""Tokens in, logits out."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.layers import ColumnParallel, ParallelEmbedding
from megatron_patches.parallel.process_groups import ProcessGroups


class TokenEmbedding(nn.Module):
    """ids `[batch, sequence]` -> `[tokens, batch, hidden]`."""

    def __init__(self, config: TransformerConfig, groups: ProcessGroups) -> None:
        super().__init__()
        self.tokens = ParallelEmbedding(config.padded_vocab_size, config.hidden_size, groups)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids)


class OutputHead(nn.Module):
    """`[tokens, batch, hidden] -> [sequence, batch, vocabulary / tensor]` by a matrix of its own.

    Of picked places alone, int64 `[batch, picked]`, it gives `[picked, batch, vocabulary / tensor]`.
    """

    def __init__(self, config: TransformerConfig, groups: ProcessGroups) -> None:
        super().__init__()
        self.soft_cap = config.logit_soft_cap
        self.logits = ColumnParallel(config.hidden_size, config.padded_vocab_size, groups, bias=False, exact=True)

    def forward(self, hidden: Tensor, picked: Tensor | None = None) -> Tensor:
        return capped(self.logits(hidden, picked), self.soft_cap)


class HeadBias(nn.Module):
    """A bias of the logits, `[..., vocabulary / tensor]` -> the same."""

    def __init__(self, config: TransformerConfig, groups: ProcessGroups) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(config.padded_vocab_size // groups.layout.tensor, dtype=groups.dtype))

    def forward(self, logits: Tensor) -> Tensor:
        return logits + self.bias


def tied_head(config: TransformerConfig) -> Callable[..., Tensor]:
    """`(embedding, [tokens, batch, hidden]) -> [sequence, batch, vocabulary / tensor]` by the embedding's own rows.

    A third argument, int64 `[batch, picked]`, picks places, as in `OutputHead`.
    """
    return partial(_tied_logits, soft_cap=config.logit_soft_cap)


def _tied_logits(
    embedding: nn.Module, hidden: Tensor, picked: Tensor | None = None, *, soft_cap: float | None
) -> Tensor:
    assert isinstance(embedding, TokenEmbedding)
    return capped(embedding.tokens.logits(hidden, picked), soft_cap)


def capped(logits: Tensor, bound: float | None) -> Tensor:
    """Logits squeezed smoothly into (-bound, bound) (Gemma 2, 2024, section 2); None leaves them alone."""
    return logits if bound is None else bound * torch.tanh(logits / bound)
