"""Patch: ZeRO 3 does not compute a gradient norm of its own in each step.

Why: `DeepSpeedZeroOptimizer_Stage3.step` computes it whatever `compute_grad_norm` says, and the host waits for the
number to see whether it is finite; with fp16 weights it waits for a search for overflows too. Norm and verdict are
the engine's, on the device (engine/deepspeed_engine.py).
No longer needed when stage 3 heeds `compute_grad_norm`, as stages 1 and 2 do.
"""

from typing import Any


def skip_second_norm(zero: Any) -> None:
    """Tell the stage 3 optimizer that its gradients have the norm zero, which it takes for a good one."""
    zero._get_norm_groups = lambda: [0.0]
    zero.check_overflow = lambda: None
