"""What computes a rank's attention: chosen once, by device, type of activations and what the run asks for."""

from dataclasses import dataclass

import torch

from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.training.training_config import AttentionKernel

_LARGEST_HEAD, _MULTIPLE_OF_HEAD = 256, 8
"""Features of a head that torch's flash kernel takes; `scaled_dot_product_attention` pads others, `varlen_attn` not."""


@dataclass(frozen=True)
class KernelChoice:
    """What a rank's attention is computed with; the same for all of its layers."""

    asked: AttentionKernel = "auto"
    """one kernel and no other, or the first of torch's that can"""
    shares_keys: bool = True
    """whether fewer heads of keys than of queries are best left to a kernel that is given no mask"""
    variable_length: bool = False
    """whether torch's kernel for segments of any length runs here"""

    def takes_segments_whole(self, biased: bool, dropout: float) -> bool:
        """Whether one call computes all segments of a micro-batch; else each has its own."""
        return self.asked == "flash_attn" or (self.variable_length and not biased and dropout == 0)


USUAL_KERNEL = KernelChoice()


def choose_kernel(groups: ProcessGroups, head_size: int) -> KernelChoice:
    """The kernel for a rank's device and type of activations; what depends on the pattern, `attend` sees to.

    On CUDA the flash kernel alone takes fewer keys than queries: in 16 bits, from compute capability 8 on. The
    memory-efficient kernel, the one for fp32 and for a V100, and any that is given a mask, wants as many keys as
    queries: else all scores are written out. Of cuDNN's it is not known here.
    """
    asked, device = groups.kernels.attention, groups.device
    if device.type != "cuda":
        return KernelChoice(asked, shares_keys=True)
    flash = groups.dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
    fits = head_size <= _LARGEST_HEAD and head_size % _MULTIPLE_OF_HEAD == 0
    return KernelChoice(
        asked,
        shares_keys=flash and asked not in ("cudnn", "efficient"),
        variable_length=flash and fits and asked in ("auto", "flash"),
    )
