"""Patch: DeepSpeed does not compile its shared-memory all-reduce when it starts on a CPU.

Why: `TorchBackend` builds a C++ extension (23 s the first time, needs ninja) for an inference-only all-reduce that
training never calls. No longer needed when DeepSpeed builds it at its first use.
"""

import deepspeed.ops


def skip_shared_memory_op() -> None:
    """Declare the extension unavailable, as it is on machines without a compiler."""
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
