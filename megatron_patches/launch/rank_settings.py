"""What a process that trains or generates sets before its libraries are imported; a user's own settings win."""

import os

from megatron_patches.errors import TrainyardError
from slurm.job import JobError, number


def available_cpus() -> int:
    """CPUs that this node's processes may use; SLURM counts them also where it does not bind.

    Raises:
        TrainyardError: SLURM's variable holds no number.
    """
    bound = len(os.sched_getaffinity(0))
    if "SLURM_CPUS_ON_NODE" not in os.environ:
        return bound
    try:
        return min(bound, number("SLURM_CPUS_ON_NODE", 1))
    except JobError as error:
        raise TrainyardError(str(error)) from None


def quieten_libraries() -> None:
    """Spares people what they know, and asks for the order of kernels that megatron-core relies on."""
    import torch

    # tensor parallelism overlaps a reduction with a product only if kernels start in order; megatron-core asks for it
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would come to the same, with a warning
