"""Matrix products in float8 with one scale a tensor (Micikevicius et al. 2022).

Each product rounds both its operands as they come: inputs and weights to e4m3 (largest value 448), gradients, whose
range is wider, to e5m2 (57,344). A scale is the largest magnitude over that maximum, taken of the tensor at hand and
never read by the host. Weights, biases, what layers keep and hand on, and the sums of gradients stay what they are
without float8: only what a product multiplies is rounded.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.errors import TrainyardError
from megatron_patches.parallel.megatron_core import (
    gather_from_sequence_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
LEAST_MAGNITUDE = 1e-30
"""of a tensor that is scaled: zeros must not be divided by zero, nor two scales multiply to less than fp32 can hold"""
LEAST_CAPABILITY = (8, 9)


def require_fp8_units(device: torch.device) -> None:
    """Raise TrainyardError where `torch._scaled_mm` does not run: a GPU without units for these formats."""
    if device.type != "cuda":
        return
    name, remedy = torch.cuda.get_device_name(device), "use --training.fp8 none, which keeps bf16"
    if torch.version.hip is not None:
        raise TrainyardError(
            f"training.fp8 is made for NVIDIA's e4m3 and e5m2, and this GPU is AMD's {name}, whose generations differ "
            f"in their float8 formats; {remedy}"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        found, least = ("{}.{}".format(*each) for each in (capability, LEAST_CAPABILITY))
        raise TrainyardError(
            f"training.fp8 needs a GPU of compute capability {least} or more (Ada, Hopper, Blackwell), and this {name} "
            f"has {found}: it multiplies no float8; {remedy}"
        )


class Fp8Linear(nn.Linear):
    """`[..., inputs] -> [..., outputs]` with bf16 weights, multiplied in float8."""

    def forward(self, features: Tensor) -> Tensor:
        output = Fp8Product.apply(features, self.weight, None, False, False)
        return output if self.bias is None else output + self.bias


def multiply_in_fp8(linear: Any, group: dist.ProcessGroup) -> None:
    """Let a `ColumnParallelLinear` or `RowParallelLinear` of megatron-core (0.16.1) multiply in float8.

    Both leave the product, and with it the messages that belong to it, to their method `_forward_impl`.
    """
    linear._forward_impl = partial(_product_of_parallel_layer, group=group)


def _product_of_parallel_layer(
    *,
    input: Tensor,
    weight: Tensor,
    bias: None,
    allreduce_dgrad: bool,
    sequence_parallel: bool,
    group: dist.ProcessGroup,
    **others: Any,
) -> Tensor:
    """What megatron-core's own function does; the bias it leaves to us (`skip_bias_add`).

    `others` are settings of buffers that no layer here has, and the group again, which row-parallel layers leave out.
    """
    assert bias is None and not others["gradient_accumulation_fusion"]
    return Fp8Product.apply(input, weight, group, allreduce_dgrad, sequence_parallel)


class Fp8Product(torch.autograd.Function):
    """`features @ weight.T` and its two gradients, each a product in float8.

    Kept for the backward pass are the features and weights themselves, not what they were rounded to: the products
    there need them in another order of memory, and recomputation knows how to make the features again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        group: dist.ProcessGroup | None,
        sums_gradient: bool,
        shares_tokens: bool,
    ) -> Tensor:
        """bf16 `[..., inputs]`, `[outputs, inputs]` -> `[..., outputs]`.

        With a `group` each of its ranks holds a slice of one of the tensors; the input's gradient is summed over it
        (`sums_gradient`), or each rank has a share of the tokens and gathers the others' (`shares_tokens`).
        """
        ctx.group, ctx.sums_gradient, ctx.shares_tokens = group, sums_gradient, shares_tokens
        whole = gather_from_sequence_parallel_region(features, group=group) if shares_tokens else features
        scales = scales_of([whole, weight], FORWARD, group)
        ctx.save_for_backward(features, weight, *scales)
        rows, matrix = rounded(whole.flatten(0, -2), scales[0], FORWARD), rounded(weight, scales[1], FORWARD)
        output = scaled_product(rows, matrix.t(), scales[0], scales[1], fast=True)
        return output.view(*whole.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Gradients in bf16; autograd adds the weight's up in the type of the parameter's `grad_dtype`."""
        (gradient,) = gradients
        features, weight, *scales = ctx.saved_tensors
        scale = scales_of([gradient], BACKWARD, ctx.group)[0]
        rows = rounded(gradient.flatten(0, -2), scale, BACKWARD)
        of_features = of_weight = message = None
        if ctx.needs_input_grad[0]:
            matrix = rounded(weight, scales[1], FORWARD)
            of_features = scaled_product(rows, matrix, scale, scales[1]).view(*gradient.shape[:-1], weight.shape[1])
            if ctx.sums_gradient:
                message = dist.all_reduce(of_features, group=ctx.group, async_op=True)
            elif ctx.shares_tokens:
                of_features = reduce_scatter_to_sequence_parallel_region(of_features, group=ctx.group)
        if ctx.needs_input_grad[1]:
            whole = gather_from_sequence_parallel_region(features, group=ctx.group) if ctx.shares_tokens else features
            inputs = rounded(whole.flatten(0, -2), scales[0], FORWARD)
            of_weight = scaled_product(rows.t(), inputs, scale, scales[0])
        if message is not None:
            message.wait()
        return of_features, of_weight, None, None, None


def scales_of(tensors: list[Tensor], dtype: torch.dtype, group: dist.ProcessGroup | None) -> list[Tensor]:
    """fp32 scalars on the device: what each tensor is divided by before it is rounded.

    The largest magnitude is that of the whole tensor, over all ranks of the group: so each number is rounded to what a
    single process would round it to. A tensor with a number that is not finite has a scale that is not, and so is the
    product, which the engine's verdict sees.
    """
    largest = [tensor.abs().amax().float() for tensor in tensors]
    if group is not None:
        together = torch.stack(largest)
        dist.all_reduce(together, dist.ReduceOp.MAX, group=group)
        largest = list(together.unbind())
    # each in memory of its own, which is aligned as cuBLAS wants what it is pointed to
    return [each.clamp(min=LEAST_MAGNITUDE) / torch.finfo(dtype).max for each in largest]


def rounded(tensor: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor over its scale, in float8. Nothing is beyond the largest value, and e5m2 would make it infinite."""
    return (tensor.float() / scale).to(dtype)


def scaled_product(left: Tensor, right: Tensor, left_scale: Tensor, right_scale: Tensor, fast: bool = False) -> Tensor:
    """`[m, k] @ [k, n]` of float8 -> bf16 `[m, n]`, summed up in fp32 and multiplied by both scales.

    On a CPU the same numbers are multiplied in fp32, which holds each product of two exactly: torch's own float8
    kernel there takes 0.7 s for a product of 256 x 256 x 256, and exists for tests like this one's.
    """
    if left.device.type == "cuda":
        return scaled_product_of_torch(left, right, left_scale, right_scale, fast)
    return (F.linear(left.float(), right.t().float()) * (left_scale * right_scale)).bfloat16()


def scaled_product_of_torch(
    left: Tensor, right: Tensor, left_scale: Tensor, right_scale: Tensor, fast: bool = False
) -> Tensor:
    """The same by cuBLAS, which wants the left side by rows and the right one by columns.

    `fast` leaves the sums in the tensor cores' own registers, of fewer bits than fp32: NVIDIA's choice for the forward
    pass, not for gradients.
    """
    return torch._scaled_mm(
        left.contiguous(), right.t().contiguous().t(), scale_a=left_scale, scale_b=right_scale,
        out_dtype=torch.bfloat16, use_fast_accum=fast,
    )  # fmt: skip
