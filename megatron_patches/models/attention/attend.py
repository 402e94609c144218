"""Attention itself, of self- and cross-attention: a free function, which takes the pattern to what computes it."""

from torch import Tensor

from megatron_patches.models.attention.flash_attn_package import package_attention, package_segments
from megatron_patches.models.attention.kernel_choice import USUAL_KERNEL, KernelChoice
from megatron_patches.models.attention.pattern import AttentionPattern
from megatron_patches.models.attention.segment_by_segment import attend_segment_by_segment
from megatron_patches.models.attention.segments import Segments
from megatron_patches.models.attention.segments_together import attend_together
from megatron_patches.models.attention.whole import ScoreBias, attend_whole


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
    if isinstance(pattern, Segments):
        return _attend_segments(query, key, value, pattern, bias, scale, dropout, kernel)
    if kernel.asked == "flash_attn":
        assert bias is None, "a launch has refused biases"
        return package_attention(query, key, value, pattern, scale, dropout)
    return attend_whole(query, key, value, pattern, bias, scale, dropout, kernel)


def _attend_segments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    bias: ScoreBias | None,
    scale: float | None,
    dropout: float,
    kernel: KernelChoice,
) -> Tensor:
    """With the tokens of all samples one after the other; of a single sample that is no copy."""
    batch, tokens = query.shape[0], query.shape[2]
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    if not kernel.takes_segments_whole(bias is not None, dropout):
        made = attend_segment_by_segment(query, key, value, segments, bias, scale, dropout, kernel)
    elif kernel.asked == "flash_attn":
        assert bias is None, "a launch has refused biases"
        made = package_segments(query, key, value, segments, scale, dropout)
    else:
        made = attend_together(query, key, value, segments, scale)
    return made.unflatten(0, (batch, tokens)).transpose(1, 2)
