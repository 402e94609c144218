"""Patch: under ZeRO 1 all gradients of a rank lie in one tensor from the first backward pass to the update.

Why: `DeepSpeedZeroOptimizer` lets autograd make a tensor for each gradient and then copies all of them into a bucket,
back out of it, and once more into the flat share that is stepped; with bf16 weights also into a second set of tensors
in each micro-batch. At 10M parameters on two ranks of a CPU these copies were 5 % of a step (row 'DP 2, ZeRO 1' of
benchmarks/: 0.925 of the bare loop's speed with them, 0.973 without). Here autograd adds to views of the tensor that
is reduced, and a share of it is what the optimizer steps. What is summed and divided is the same.
No longer needed when DeepSpeed reduces a flat tensor that gradients are views of.
"""

from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.zero.stage_1_and_2 import GradPartitionBufferGroup
from torch import Tensor, nn

from megatron_patches.deepspeed_patches.early_reduction import EarlyReduction


class FlatGradients:
    """The gradients of one ZeRO 1 optimizer: fp32, laid out as DeepSpeed lays out the weights.

    Args:
        zero: DeepSpeed's optimizer, whose handling of gradients this takes over.
        scatter: reduce each share to its rank alone. Half the bytes of an all-reduce, which NCCL makes use of; gloo's
            is built on an all-reduce and took 0.103 s where that took 0.056 (40 MB, two ranks).
        overlap: all-reduce each bucket as soon as the last backward pass has been through its parameters, while it
            goes on with others.
    """

    def __init__(self, zero: Any, scatter: bool, overlap: bool = False) -> None:
        self._zero, self._scatter = zero, scatter
        self._flat: list[Tensor] = []
        self._shares: list[GradPartitionBufferGroup] = []
        self._views: list[list[tuple[nn.Parameter, Tensor]]] = []
        for group, weights in enumerate(zero.bit16_groups_flat):
            flat = torch.zeros(weights.numel(), dtype=torch.float32, device=weights.device)
            starts = [
                (parameter, (parameter.data_ptr() - weights.data_ptr()) // weights.element_size())
                for parameter in zero.bit16_groups[group]
            ]
            self._flat.append(flat)
            self._views.append([(each, flat.narrow(0, start, each.numel()).view(each.shape)) for each, start in starts])
            self._shares.append(self._share(group))
        self._early = EarlyReduction(zero, self._flat, self._views) if overlap else None
        if overlap and not zero._grad_acc_hooks:  # fp32 weights have none under stage 1
            zero.create_gradient_handling_hooks()
        zero.use_grad_accum_attribute = False  # gradients stay where autograd adds them up
        zero.process_gradients = self._early.count if self._early else lambda parameter, group: None
        zero.free_grad_in_param_list = lambda parameters: None
        zero.reduce_gradients = self.reduce
        zero.zero_grad = self.clear
        self.clear()

    def _share(self, group: int) -> GradPartitionBufferGroup:
        """What this rank steps: the stretch of the flat tensor that its masters are the weights of."""
        zero = self._zero
        rank = dist.get_rank(group=zero.real_dp_process_group[group])
        size = int(zero.partition_size[group])
        share = self._flat[group].narrow(0, rank * size, size)
        pieces = []
        for parameter in zero.params_in_partition[group]:
            inside = parameter._hp_mapping.get_hp_fragment_address()
            pieces.append(share.narrow(0, inside.start, inside.numel))
        return GradPartitionBufferGroup(pieces, share)

    def reduce(self, pipeline_parallel: bool = False) -> None:
        """Average over data-parallel ranks, of which each gets its share at least."""
        if self._early:
            self._early.finish()
        for group, (flat, share) in enumerate(zip(self._flat, self._shares, strict=True)):
            ranks = self._zero.real_dp_process_group[group]
            if self._early is None and self._scatter:
                dist.reduce_scatter_tensor(share.flat_partition, flat, group=ranks)
            elif self._early is None:
                dist.all_reduce(flat, group=ranks)
            share.flat_partition.div_(dist.get_world_size(group=ranks))
            self._zero.averaged_gradients[group] = share

    def clear(self, set_to_none: bool = True) -> None:
        """Zeros, and each parameter's gradient is its view; DeepSpeed calls this after an update."""
        for flat in self._flat:
            flat.zero_()
        for views in self._views:
            for parameter, view in views:
                parameter.grad = view
