"""Patch: sum a tied weight's gradient over the stages that hold it, wherever DeepSpeed keeps that gradient.

Why: `PipelineEngine._exec_reduce_tied_grads` looks at `weight.grad` alone. With bf16 weights and fp32 gradients ZeRO 1
has moved it to `weight.grad_accum` by then, `weight.grad` is None, and the sum is left out without a word: first and
last stage drift apart. No longer needed when DeepSpeed asks the optimizer for the gradient.
"""

import torch.distributed as dist
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor, nn


def sum_tied_gradients(engine: PipelineEngine) -> None:
    """All-reduce the gradient of every tied weight that is trained over its stages."""
    for weight, group in engine.module.get_tied_weights_and_groups():
        if not weight.requires_grad:
            continue
        gradient = _gradient(engine, weight)
        assert gradient is not None, "a tied weight has no gradient after the backward pass"
        dist.all_reduce(gradient, group=group)


def _gradient(engine: PipelineEngine, weight: nn.Parameter) -> Tensor | None:
    where_it_is = getattr(engine.optimizer, "get_param_gradient_attribute", None)
    return where_it_is(weight) if where_it_is else weight.grad
