"""Attention of all segments in one call on a GPU: flash kernels that are told where they begin, and read no mask."""

from functools import partial

from torch import Tensor

from megatron_patches.models.attention.segments import Segments

_ANY, _NONE = -1, 0  # keys that are seen on one side of the query


def attend_together(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """By torch (from 2.12 on, where heads share keys): all tensors are `[tokens of all samples, heads, feature]`.

    Imported here: on a CPU nothing needs the module.
    """
    from torch.nn.attention.varlen import varlen_attn

    window = (_ANY, _NONE if segments.causal else _ANY)
    cuts, longest = segments.cuts, segments.longest
    call = partial(varlen_attn, query, key, value, cuts, cuts, longest, longest, scale=scale, window_size=window)
    made = call(enable_gqa=True) if key.shape[1] < query.shape[1] else call()
    assert isinstance(made, Tensor), "nothing but the result was asked for"
    return made
