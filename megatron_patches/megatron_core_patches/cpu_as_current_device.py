"""Patch: megatron-core's buffers of sequence parallelism lie on the CPU where there is no GPU.

Why: `tensor_parallel/mappings.py`, `tensor_parallel/layers.py` and `GlobalMemoryBuffer` (0.16.1) allocate what they
gather and scatter with `device=torch.cuda.current_device()`, though gloo runs the collectives on a CPU as they are.
Without CUDA that function raises, and nothing on such a machine can need its answer: here it says "cpu".
No longer needed when they allocate on the device of their input.
"""

import torch


def use_cpu_where_there_is_no_cuda() -> None:
    """Let `torch.cuda.current_device()` name the CPU on a machine without CUDA; nothing on others."""
    if not torch.cuda.is_available():
        torch.cuda.current_device = _cpu  # type: ignore[assignment]


def _cpu() -> torch.device:
    return torch.device("cpu")
