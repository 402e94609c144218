"""Bytes that a rank keeps of a micro-batch between forward and backward pass, as the architecture counts them.

Torch-free.
"""

from dataclasses import replace

from megatron_patches.models.interface.architecture import Activations, Device, Recomputation
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig


def activations(
    config: RunConfig,
    layout: Layout,
    kind: Recomputation | None = None,
    micro_batch: int | None = None,
    device: Device = "cuda",
) -> Activations:
    """What one micro-batch keeps; `kind` and `micro_batch` in place of the run's own."""
    own = config.workload(layout, device)
    asked = replace(own, recomputation=kind or own.recomputation, micro_batch=micro_batch or own.micro_batch)
    return config.architecture.activations(config.model, asked)
