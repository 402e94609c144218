"""Attention of segments by a call for each length: on a CPU, and on a GPU where no kernel takes them all together.

Segments of one length are a batch of their own, wherever they lie: a call and its backward pass take more than 0.1 ms
on a CPU however small they are, and each waits for all threads. The tokens are cut by one `split`, whose backward pass
is one `cat`; that of a slice is a tensor of zeros of the whole size for each call.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    runs, order = segments.by_length.runs, segments.by_length.order
    if order is not None:
        query, key, value = (_moved(each, order.places, order.back) for each in (query, key, value))
    tokens = [count * length for count, length in runs]
    attended = []
    parts = zip(*(each.split(tokens) for each in (query, key, value)), strict=True)
    for (count, length), part in zip(runs, parts, strict=True):
        queries, keys, values = (each.unflatten(0, (count, length)).transpose(1, 2) for each in part)
        made = attend_whole(queries, keys, values, pattern, _beginning(bias, length), scale, dropout, kernel)
        attended.append(made.transpose(1, 2).flatten(0, 1))
    made = torch.cat(attended)
    return made if order is None else _moved(made, order.back, order.places)


class _Moved(torch.autograd.Function):
    """Rows in another order, and gradients in the old one; torch's own backward pass would add them up, row by row."""

    @staticmethod
    def forward(context: Any, rows: Tensor, places: Tensor, back: Tensor) -> Tensor:
        context.save_for_backward(back)
        return rows.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = context.saved_tensors
        return gradient.index_select(0, back), None, None


def _moved(rows: Tensor, places: Tensor, back: Tensor) -> Tensor:
    moved: Tensor = _Moved.apply(rows, places, back)
    return moved


def _beginning(bias: ScoreBias | None, length: int) -> ScoreBias | None:
    return None if bias is None else ScoreBias(bias.values[..., :length, :length], bias.hides)
