"""Attention itself, of self- and cross-attention: a free function, and the one place that chooses its kernel."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron_patches.models.layers.attention_pattern import AttentionPattern, Causal, causal_keys, seen_keys
from megatron_patches.parallel.attention_kernels import only
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.training.training_config import AttentionKernel


@dataclass(frozen=True)
class ScoreBias:
    """What is added to the scores, `[1 or batch, heads, queries, keys]`, in the type of the query."""

    values: Tensor
    hides: bool = False
    """whether it is -inf already where the pattern hides a key: one tensor, made once for all layers"""


@dataclass(frozen=True)
class KernelChoice:
    """What a rank's attention is computed with; the same for all of its layers."""

    asked: AttentionKernel = "auto"
    """one of torch's kernels and no other, or the first of them that can"""
    shares_keys: bool = True
    """whether fewer heads of keys than of queries are best left to a kernel that is given no mask"""


USUAL_KERNEL = KernelChoice()


def choose_kernel(groups: ProcessGroups) -> KernelChoice:
    """The kernel for a rank's device and type of activations; what depends on the pattern, `attend` sees to.

    On CUDA the flash kernel alone takes fewer keys than queries: in 16 bits, from compute capability 8 on. The
    memory-efficient kernel, the one for fp32 and for a V100, and any that is given a mask, wants as many keys as
    queries: else all scores are written out. Of cuDNN's it is not known here.
    """
    asked, device = groups.kernels.attention, groups.device
    if device.type != "cuda":
        return KernelChoice(asked, shares_keys=True)
    flash = groups.dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
    return KernelChoice(asked, shares_keys=flash and asked not in ("cudnn", "efficient"))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: AttentionPattern,
    *,
    bias: ScoreBias | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    kernel: KernelChoice = USUAL_KERNEL,
) -> Tensor:
    """`[batch, heads, queries, feature]` from as many heads of queries, and as many or fewer of keys and values.

    `key` and `value` are `[batch, groups, keys, feature]`; `groups` divides `heads`, and neighbouring heads share one.
    Scores are multiplied by `scale`, 1 / sqrt(feature) where it is None; `dropout` is the share of weights that is
    dropped.
    """
    mask = score_mask(pattern, bias, query, key)
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


def score_mask(pattern: AttentionPattern, bias: ScoreBias | None, query: Tensor, key: Tensor) -> Tensor | None:
    """What `scaled_dot_product_attention` adds to the scores, or a boolean mask; None where it needs neither."""
    if bias is not None and bias.hides:
        return bias.values
    seen = seen_keys(pattern, query, key)
    if bias is None:
        return seen
    if isinstance(pattern, Causal):
        seen = causal_keys(query, key)
    return bias.values if seen is None else bias.values.masked_fill(~seen, -torch.inf)
