"""Attention of segments by a call for each: on a CPU, and on a GPU where no kernel takes them all together.

The tokens of all samples are cut by one `split`, whose backward pass is one `cat`; that of a slice is a tensor of zeros
of the whole size for each segment. Neighbouring segments of one length are a batch of their own.
"""

import torch
from torch import Tensor

from megatron_patches.models.attention.kernel_choice import KernelChoice
from megatron_patches.models.attention.pattern import CAUSAL, FULL
from megatron_patches.models.attention.segments import Segments
from megatron_patches.models.attention.whole import ScoreBias, attend_whole


def attend_segment_by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    bias: ScoreBias | None,
    scale: float | None,
    dropout: float,
    kernel: KernelChoice,
) -> Tensor:
    """See `attend`; here all tensors are `[tokens of all samples, heads, feature]`."""
    pattern = CAUSAL if segments.causal else FULL
    runs = segments.runs
    tokens = [count * length for count, length in runs]
    attended = []
    parts = zip(*(each.split(tokens) for each in (query, key, value)), strict=True)
    for (count, length), part in zip(runs, parts, strict=True):
        queries, keys, values = (each.unflatten(0, (count, length)).transpose(1, 2) for each in part)
        made = attend_whole(queries, keys, values, pattern, _beginning(bias, length), scale, dropout, kernel)
        attended.append(made.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)


def _beginning(bias: ScoreBias | None, length: int) -> ScoreBias | None:
    return None if bias is None else ScoreBias(bias.values[..., :length, :length], bias.hides)
