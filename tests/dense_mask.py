"""The attention that segments stand for: one call for whole samples, with a number for each pair of tokens.

Every number is of one document, and documents that are apart have different ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dense_mask(documents: Tensor, causal: bool) -> Tensor:
    """True where a token sees another, bool `[batch, 1, tokens, tokens]`, of int64 `[batch, tokens]`."""
    tokens = documents.shape[1]
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same & torch.ones(tokens, tokens, dtype=torch.bool).tril() if causal else same


def attend_densely(
    query: Tensor, key: Tensor, value: Tensor, documents: Tensor, causal: bool, slopes: Tensor | None = None
) -> Tensor:
    """`[batch, heads, tokens, feature]`; with slopes, `[heads]`, scores fall with the distance as ALiBi's do."""
    mask = dense_mask(documents, causal)
    if slopes is not None:
        places = torch.arange(documents.shape[1])
        falls = -slopes[:, None, None] * (places - places[:, None]).abs()
        mask = falls.to(query.dtype).masked_fill(~mask, -torch.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=key.shape[1] < query.shape[1])
