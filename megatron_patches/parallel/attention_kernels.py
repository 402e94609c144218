"""The kernels of torch's `scaled_dot_product_attention`, by the names that runs give them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.parallel.flash_attn_extra import flash_attn_problems
from megatron_patches.training.training_config import AttentionKernel

_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
_ON_A_CPU = ("auto", "flash", "math")


def only(kernel: AttentionKernel) -> AbstractContextManager[None]:
    """Within it, attention is computed by this kernel and no other: one that cannot is an error, not a slower one.

    Dynamo traces it as a part of a block's graph. (flash_attn is none of torch's.)
    """
    return sdpa_kernel(_BACKENDS[kernel]) if kernel in _BACKENDS else nullcontext()


def require_attention_kernel(kernel: AttentionKernel, device: torch.device, dtype: torch.dtype) -> None:
    """Raise TrainyardError where this device has no such kernel for this type."""
    if kernel == "flash_attn":
        refuse(flash_attn_problems(device.type == "cuda", dtype == torch.float32))
    if device.type != "cuda":
        if kernel not in _ON_A_CPU:
            raise TrainyardError(
                f"training.attention_kernel {kernel} needs a GPU, and this process sees none; use one of "
                f"{', '.join(_ON_A_CPU)}"
            )
        return
    if kernel not in ("flash", "flash_attn", "cudnn"):
        return
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if dtype == torch.float32:
        raise TrainyardError(
            f"training.attention_kernel {kernel} takes 16 bits on a GPU, and training.precision is fp32; use "
            "efficient, math or auto, or precision bf16"
        )
    if capability < (8, 0):
        raise TrainyardError(
            f"training.attention_kernel {kernel} needs a GPU of compute capability 8.0 or more, and this {name} has "
            f"{capability[0]}.{capability[1]}; use efficient, math or auto"
        )
