"""The engine, data and schedule of a run without the trainer, on one rank of a test's processes (`tests.ranks`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from megatron_patches.run.config import RunConfig

if TYPE_CHECKING:
    from megatron_patches.engine.interface import Engine
    from megatron_patches.objectives.batches import TrainingBatches
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.randomness import StepRandomness

Steps = list[tuple[float, float]]


class SmallEngine:
    """Trains step by step, in process groups that are there, or in new ones."""

    engine: Engine
    batches: TrainingBatches
    randomness: StepRandomness

    def __init__(self, config: RunConfig, groups: ProcessGroups | None = None) -> None:
        from data_tools.run_data import RunData
        from megatron_patches.checkout import CHECKOUT
        from megatron_patches.engine.build import build_engine
        from megatron_patches.parallel.kernels import kernels_of
        from megatron_patches.parallel.randomness import StepRandomness
        from megatron_patches.training.train import training_batches

        groups = replace(groups or groups_of(config), kernels=kernels_of(config.training))
        self.config = config
        self.groups = groups
        self.randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
        self.engine = build_engine(config, groups, self.randomness)
        self.batches = training_batches(
            config, RunData(config.data, CHECKOUT, config.lengths, config.place_after), groups
        )
        self.step = 0

    def train(self, steps: int) -> Steps:
        """(loss, gradient norm) of each of the next steps."""
        seen = []
        for _ in range(steps):
            self.randomness.start_step(self.step + 1)
            loss = self.engine.forward_backward(self.batches.at(self.config.timetable.after(self.step).samples))
            norm = self.engine.grad_norm()
            self.step += 1
            self.engine.step(self.config.learning_rate(self.step), norm)
            seen.append((loss.item(), norm.item()))
        return seen


def groups_of(config: RunConfig) -> ProcessGroups:
    """New process groups for a run on all processes of the test."""
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.run.layout import plan_layout

    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    return start_process_groups(layout, PRECISIONS[config.training.precision])


def record_steps(config: RunConfig, steps: int, groups: ProcessGroups | None = None) -> Steps:
    """(loss, gradient norm) of each step on this rank, through engine, data and schedule of a run."""
    small = SmallEngine(config, groups)
    seen = small.train(steps)
    small.batches.close()
    return seen


def record_all(configs: Sequence[RunConfig], steps: int) -> list[Steps]:
    """`record_steps` of several runs of one layout, in one set of process groups."""
    assert len({config.training.precision for config in configs}) == 1, "groups have one type of weights"
    groups = groups_of(configs[0])
    return [record_steps(config, steps, groups) for config in configs]


SAME_IN_FP32 = 3e-5
"""largest relative difference of losses and gradient norms over the first steps of two layouts in fp32: sums are added
up in another order, and how that rounds is the processor's (up to 0.7e-5 on one machine, 1.5e-5 on another)"""


def relative(found: list[tuple[float, ...]], expected: list[tuple[float, ...]]) -> float:
    """Largest relative difference of two lists of steps."""
    pairs = [pair for ours, theirs in zip(found, expected, strict=True) for pair in zip(ours, theirs, strict=True)]
    return max(abs(a - b) / abs(b) for a, b in pairs)
