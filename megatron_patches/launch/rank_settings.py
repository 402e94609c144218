"""What a process that trains or generates sets before its libraries are imported; a user's own settings win."""

import os


def available_cpus() -> int:
    """CPUs that this node's processes may use; SLURM counts them also where it does not bind."""
    bound = len(os.sched_getaffinity(0))
    return min(bound, int(os.environ.get("SLURM_CPUS_ON_NODE", bound)))


def quieten_libraries() -> None:
    """Spares people what they know, and asks for the order of kernels that megatron-core relies on."""
    import torch

    # tensor parallelism overlaps a reduction with a product only if kernels start in order; megatron-core asks for it
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would come to the same, with a warning
