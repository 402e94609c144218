"""Which keys a query sees, said explicitly; and the mask that stands for it where a kernel needs one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_patches.models.attention.segments import Segments


@dataclass(frozen=True)
class Full:
    """Every query sees every key."""


@dataclass(frozen=True)
class Causal:
    """A query sees the keys up to its own position; queries and keys are the same tokens."""


@dataclass(frozen=True)
class Ranges:
    """A query sees a range of keys of its own: `visible` is int64 `[batch, queries, 2]`, half-open."""

    visible: Tensor


Whole = Full | Causal | Ranges
"""Patterns of which a kernel computes all queries of a sample together."""
AttentionPattern = Whole | Segments

FULL, CAUSAL = Full(), Causal()


def seen_keys(pattern: Whole, key: Tensor) -> Tensor | None:
    """True where a query sees a key, bool `[batch, 1, queries, keys]`; None where no tensor says it (full, causal).

    `key` is `[batch, heads, positions, feature]`. The result has four dimensions: of any other number the fused kernels
    take none.
    """
    if isinstance(pattern, Ranges):
        positions = torch.arange(key.shape[-2], device=key.device)
        start, stop = pattern.visible[:, None, :, None, 0], pattern.visible[:, None, :, None, 1]
        return (start <= positions) & (positions < stop)
    return None


def causal_keys(query: Tensor, key: Tensor) -> Tensor:
    """True where a key is not behind the query, bool `[queries, keys]`."""
    queries, keys = (torch.arange(each.shape[-2], device=each.device) for each in (query, key))
    return keys <= queries[:, None]
