"""Patch: torch's optimizers do not import TorchDynamo in a process that compiles nothing.

Why: `torch.optim.Optimizer` (2.13) keeps Dynamo out of four of its methods, and AdamW's and SGD's `step` ends a graph
before and after the update. To do so each imports TorchDynamo, with it inductor, DTensor and sympy, also where no graph
is ever made: 2.2 s of CPU time of each rank before its first step, nearly as much as torch itself takes.
No longer needed when a step of `torch.optim.AdamW` leaves `torch._dynamo` unimported.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.optim import SGD, Adam, Optimizer

_KEPT_FROM_DYNAMO = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def run_optimizers_eagerly() -> None:
    """Let optimizers of this process do their work without Dynamo; for one that calls none of them from a graph.

    Where Dynamo is there already, nothing is to be spared, and nothing is changed.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in _KEPT_FROM_DYNAMO:
        method = getattr(Optimizer, name).__wrapped__
        method.__dynamo_disable = method  # where torch keeps what Dynamo once made of the method
    kinds: tuple[Any, ...] = (Adam, SGD)  # AdamW's step is Adam's
    for kind in kinds:
        if not hasattr(kind.step, "runs_eagerly"):
            kind.step = _without_graph_breaks(kind.step.__wrapped__)


def _without_graph_breaks(step: Callable[..., Any]) -> Callable[..., Any]:
    """What torch's own decorator does around a step, but for the breaks."""

    @wraps(step)
    def run(self: Optimizer, *arguments: Any, **options: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *arguments, **options)

    run.runs_eagerly = True  # type: ignore[attr-defined]
    return run
