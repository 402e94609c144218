"""Attention by the package flash-attn (Dao 2023), which is an extra and imported where it is asked for.

It takes 16 bits on a GPU, no mask and no bias, fewer heads of keys than of queries, and dropout, which it draws from
torch's generator.
"""

from torch import Tensor

from megatron_patches.models.attention.pattern import Causal, Ranges, Whole
from megatron_patches.models.attention.segments import Segments


def package_attention(
    query: Tensor, key: Tensor, value: Tensor, pattern: Whole, scale: float | None, dropout: float
) -> Tensor:
    """Attention within whole samples; see `attend`."""
    from flash_attn import flash_attn_func

    assert not isinstance(pattern, Ranges), "a launch has refused patterns that need a mask"
    by_tokens = (each.transpose(1, 2) for each in (query, key, value))
    made: Tensor = flash_attn_func(
        *by_tokens, dropout_p=dropout, softmax_scale=scale, causal=isinstance(pattern, Causal)
    )
    return made.transpose(1, 2)


def package_segments(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None, dropout: float
) -> Tensor:
    """Attention within each segment; the tensors are `[tokens of all samples, heads, feature]`."""
    from flash_attn import flash_attn_varlen_func

    cuts, longest = segments.cuts, segments.longest
    made: Tensor = flash_attn_varlen_func(
        query, key, value, cuts, cuts, longest, longest,
        dropout_p=dropout, softmax_scale=scale, causal=segments.causal,
    )  # fmt: skip
    return made
