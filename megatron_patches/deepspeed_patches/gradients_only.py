"""Patch: a pipeline schedule that ends with the last backward pass.

Why: DeepSpeed's TrainSchedule ends with reduction and optimizer step in one go, so nobody can see the gradient's norm
between them, clip by it, or leave the step out. And under ZeRO 0 its own norm is not the model's: it takes parameters
of later stages for copies (1.53 in place of 1.97 in tests/megatron_patches/engine/test_deepspeed_patches.py).
No longer needed when `PipelineEngine` can run a batch without its step.
"""

from collections.abc import Iterator
from typing import Any

from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.pipe.schedule import OptimizerStep, ReduceGrads, ReduceTiedGrads, TrainSchedule

_AFTER_THE_LAST_BACKWARD = (ReduceTiedGrads, ReduceGrads, OptimizerStep)


class GradientsOnlySchedule(TrainSchedule):
    """One-forward-one-backward over all micro-batches, and nothing after it."""

    def steps(self) -> Iterator[list[Any]]:
        for commands in super().steps():
            yield [command for command in commands if not isinstance(command, _AFTER_THE_LAST_BACKWARD)]


def run_gradients_only(engine: PipelineEngine, micro_batches: int) -> None:
    """Forward and backward passes of one global batch, so many micro-batches, from the engine's data iterator."""
    engine.module.train()
    engine.total_loss = None
    engine.total_additional_losses = None
    engine._compute_loss = True
    schedule = GradientsOnlySchedule(micro_batches=micro_batches, stages=engine.num_stages, stage_id=engine.stage_id)
    engine._exec_schedule(schedule)
