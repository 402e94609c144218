"""Attention of whole samples: torch's `scaled_dot_product_attention`, with a mask where it needs one."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron_patches.models.attention.kernel_choice import KernelChoice
from megatron_patches.models.attention.pattern import Causal, Whole, causal_keys, seen_keys
from megatron_patches.parallel.attention_kernels import only


@dataclass(frozen=True)
class ScoreBias:
    """What is added to the scores, `[1 or batch, heads, queries, keys]`, in the type of the query.

    With segments it is the bias of the longest one, `[1, heads, longest, longest]`; shorter segments take its
    beginning.
    """

    values: Tensor
    hides: bool = False
    """whether it is -inf already where the pattern hides a key: one tensor, made once for all layers"""


def attend_whole(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Whole,
    bias: ScoreBias | None,
    scale: float | None,
    dropout: float,
    kernel: KernelChoice,
) -> Tensor:
    """See `attend`."""
    mask = _score_mask(pattern, bias, query, key)
    repeats = query.shape[1] // key.shape[1]
    shares = mask is None and kernel.shares_keys
    if repeats > 1 and not shares:
        key, value = (heads.repeat_interleave(repeats, dim=1) for heads in (key, value))
    causal = mask is None and isinstance(pattern, Causal)
    with only(kernel.asked):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal,
            scale=scale, enable_gqa=shares and repeats > 1,
        )  # fmt: skip


def _score_mask(pattern: Whole, bias: ScoreBias | None, query: Tensor, key: Tensor) -> Tensor | None:
    """What `scaled_dot_product_attention` adds to the scores, or a boolean mask; None where it needs neither."""
    if bias is not None and bias.hides:
        return bias.values
    seen = seen_keys(pattern, key)
    if bias is None:
        return seen
    if isinstance(pattern, Causal):
        seen = causal_keys(query, key)
    return bias.values if seen is None else bias.values.masked_fill(~seen, -torch.inf)
