"""Cross entropy over logits whose vocabulary is shared by the tensor-parallel ranks."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_patches.objectives.objective_config import ObjectiveSection
from megatron_patches.parallel.process_groups import ProcessGroups

LossFunction = Callable[[Tensor, tuple[Tensor, ...]], Tensor]

# Numbers in fp32 made of logits at a time. On a GPU 64 MB, where all logits of a micro-batch may be 1 GB; on a CPU
# 1 MB, which stays in the cache between one operation and the next: 45 ms in place of 91 for 2048 x 8192 on two cores.
ELEMENTS_AT_ONCE = {"cuda": 1 << 24, "cpu": 1 << 18}


def build_loss(objective: ObjectiveSection, groups: ProcessGroups) -> LossFunction:
    """What training minimises: `weighted_loss` with the objective's label smoothing and z-loss."""
    terms = objective.loss_terms
    return partial(weighted_loss, groups=groups, label_smoothing=terms.label_smoothing, z_loss=terms.z_loss)


def weighted_loss(
    logits: Tensor,
    targets: tuple[Tensor, ...],
    groups: ProcessGroups,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Sum over tokens of weight x loss; with neither smoothing nor z-loss the negative log-likelihood, in nats.

    `logits` `[sequence, batch, vocabulary / tensor]` of any float type, computed with in fp32 (fp64 stays fp64);
    `targets` is (labels int64, weights fp32), each `[batch, sequence]`. The same number on every tensor-parallel rank.

    `label_smoothing` e makes the target a distribution: 1 - e for the label, and e spread evenly over all rows of the
    output matrix, the padding of the vocabulary included, since the softmax runs over them too (Szegedy et al. 2016,
    section 7). `z_loss` adds itself x log(Z)**2, Z the denominator of the softmax (Chowdhery et al. 2022, section 5).
    """
    labels, weights = targets
    losses = _TokenLosses.apply(logits, labels.transpose(0, 1), label_smoothing, z_loss, groups)
    return (losses * weights.transpose(0, 1)).sum()


def log_probabilities(logits: Tensor, labels: Tensor, groups: ProcessGroups) -> Tensor:
    """Of each label, in nats, fp32 `[batch, sequence]`; logits and labels as `weighted_loss` takes them.

    The softmax runs over all rows of the output matrix, as in training. The same on every tensor-parallel rank.
    """
    return -_TokenLosses.apply(logits, labels.transpose(0, 1), 0.0, 0.0, groups).transpose(0, 1)


class _TokenLosses(torch.autograd.Function):
    """Losses `[sequence, batch]`. The logits are kept as they are; the softmax is made again for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, label_smoothing: float, z_loss: float, groups: ProcessGroups
    ) -> Tensor:
        vocabulary_here = logits.shape[-1]
        vocabulary = vocabulary_here * groups.layout.tensor
        largest = logits.amax(dim=-1).to(torch.promote_types(logits.dtype, torch.float32))
        _reduce(largest, groups, dist.ReduceOp.MAX)

        column, here = _columns(labels, vocabulary_here, groups)
        sums = torch.zeros((3 if label_smoothing else 2, *labels.shape), dtype=largest.dtype, device=logits.device)
        label_logit = logits.gather(-1, column.unsqueeze(-1)).squeeze(-1) - largest
        sums[1] = torch.where(here, label_logit, 0)
        for rows in _rows(logits):
            shifted = logits[rows] - largest[rows].unsqueeze(-1)
            if label_smoothing:
                sums[2, rows] = shifted.sum(dim=-1)
            sums[0, rows] = shifted.exp_().sum(dim=-1)
        _reduce(sums, groups, dist.ReduceOp.SUM)

        log_sum = sums[0].log()
        losses = log_sum - (1 - label_smoothing) * sums[1]
        if label_smoothing:
            losses -= label_smoothing / vocabulary * sums[2]
        if z_loss:
            losses += z_loss * (largest + log_sum).square()
        ctx.save_for_backward(logits, column, here, largest, sums[0].clone())
        ctx.constants = (label_smoothing, z_loss, vocabulary)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """(1 + 2 z log Z) softmax - (1 - e) [label] - e / vocabulary, times the gradient of each loss; no messages."""
        logits, column, here, largest, exponentials = ctx.saved_tensors
        label_smoothing, z_loss, vocabulary = ctx.constants
        (gradient,) = gradients
        of_softmax = gradient / exponentials
        if z_loss:
            of_softmax = of_softmax * (1 + 2 * z_loss * (largest + exponentials.log()))
        of_label = torch.where(here, -(1 - label_smoothing) * gradient, 0).unsqueeze(-1)
        result = torch.empty_like(logits)
        for rows in _rows(logits):
            part = _working_space(result[rows], largest.dtype)
            torch.sub(logits[rows], largest[rows].unsqueeze(-1), out=part)
            part.exp_().mul_(of_softmax[rows].unsqueeze(-1))
            if label_smoothing:
                part -= (label_smoothing / vocabulary * gradient[rows]).unsqueeze(-1)
            part.scatter_add_(-1, column[rows].unsqueeze(-1), of_label[rows])
            if part.dtype != result.dtype:
                result[rows] = part
        return result, None, None, None, None


def _columns(labels: Tensor, vocabulary_here: int, groups: ProcessGroups) -> tuple[Tensor, Tensor]:
    """The column of each label on this rank, and whether it is one; where not, the column is any."""
    column = labels - groups.coordinates.tensor * vocabulary_here
    here = (column >= 0) & (column < vocabulary_here)
    return column.clamp(0, vocabulary_here - 1), here


def _working_space(place: Tensor, dtype: torch.dtype) -> Tensor:
    """Where a part of the gradient is computed: in its place, if that is precise enough."""
    return place if place.dtype == dtype else torch.empty_like(place, dtype=dtype)


def _rows(logits: Tensor) -> Iterator[slice]:
    """Stretches of the sequence in which no more than ELEMENTS_AT_ONCE logits lie, or one place."""
    length = max(1, ELEMENTS_AT_ONCE[logits.device.type] // (logits.shape[1] * logits.shape[2]))
    for start in range(0, logits.shape[0], length):
        yield slice(start, start + length)


def _reduce(values: Tensor, groups: ProcessGroups, operation: dist.ReduceOp.RedOpType) -> None:
    if groups.layout.tensor > 1:
        dist.all_reduce(values, op=operation, group=groups.tensor_group)
