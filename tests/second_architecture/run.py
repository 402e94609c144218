"""Runs of two stacks on the small dataset, and what each rank of a test does with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from tests.second_architecture.register import register_all
from tests.small_engine import SmallEngine, Steps, groups_of
from tests.small_training import SmallData, train_launch

if TYPE_CHECKING:
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.state_piece import StatePiece

RUN_YAML = """
why: a second architecture
model: {{name: two_stacks, encoder_blocks: 3, decoder_blocks: 2, width: 32, heads: 4, features: 64, vocab_size: 384}}
data: {{path: {folder}/text, tokenizer: {folder}/tokenizer, split: "8,2", sequence_length: 16}}
objective: {{name: second_half, encoder_share: 0.75}}
training: {{steps: 8, global_batch_size: 12, micro_batch_size: 3, precision: fp32, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-2, weight_decay: 0.1, gradient_clip: 0.05}}
schedule: {{name: cosine, warmup: 2, final_learning_rate: 1e-3}}
checkpoint: {{every_steps: 3}}
evaluation: {{every_steps: 4, samples: 10}}
"""


@dataclass(frozen=True)
class Trained:
    """What one rank saw of a run, and what it holds at its end."""

    steps: Steps
    validation: float
    weights: list[tuple[str, Any, int, Any]]
    """name, box, first element of it, numbers"""
    parameters: int
    """as the engine counts them"""


def two_stacks_run(data: SmallData, folder: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A run on this data, its YAML written to a folder."""
    register_all()
    path = folder / "tr900-tests" / "tr900b-60K-two.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RUN_YAML.format(folder=data.folder))
    return load_run(path, overrides)


def train_two_stacks(launch_directory: str) -> None:
    """One rank of a launch, for `tests.ranks`."""
    register_all()
    train_launch(launch_directory)


def train_and_stop(launch_directory: str, in_step: int) -> None:
    """The same, with a signal on rank 0 while a step reads its data."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def read_and_signal(self: TrainingBatches, consumed: int) -> Any:
        if consumed == (in_step - 1) * 12 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGUSR1)
        return read(self, consumed)

    TrainingBatches.at = read_and_signal  # type: ignore[method-assign, assignment]
    train_two_stacks(launch_directory)


def record(configs: Sequence[RunConfig], steps: int) -> list[Trained]:
    """The first steps of each run; tensor, pipeline and data sizes are those of all of them."""
    register_all()
    groups = groups_of(configs[0])
    return [_record(config, steps, groups) for config in configs]


def _record(config: RunConfig, steps: int, groups: ProcessGroups) -> Trained:
    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.run.layout import plan_layout

    layout = plan_layout(config, groups.layout.world_size)
    small = SmallEngine(config, replace(groups, layout=layout, dtype=PRECISIONS[config.training.precision]))
    seen = small.train(steps)
    validation = small.engine.evaluate(small.batches.at(0))["loss"].mean
    small.batches.close()
    weights = [_held(piece) for piece in small.engine.state() if piece.kind == "weight"]
    return Trained(seen, validation, weights, small.engine.parameter_count())


def _held(piece: StatePiece) -> tuple[str, Any, int, Any]:
    return piece.name, piece.slice, piece.start, piece.tensor.float().numpy().copy()


def bytes_kept(configs: Sequence[RunConfig]) -> list[int]:
    """Bytes that a forward pass and its loss leave alive."""
    import numpy as np
    import torch

    from megatron_patches.engine.build import blueprint_of
    from megatron_patches.models.build import PlainModel
    from megatron_patches.objectives.build import build_objective
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.run.layout import plan_layout
    from tests.live_bytes import watch

    register_all()
    groups = groups_of(configs[0])
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    found = []
    for config in configs:
        own = replace(groups, layout=plan_layout(config, groups.layout.world_size))
        model = PlainModel(blueprint_of(config, own, randomness))
        samples = config.training.micro_batch_size
        items = {"tokens": torch.randint(384, (samples, config.lengths.read))}
        batch = build_objective(config.objective, 0, None)(items, np.arange(samples))
        randomness.start_step(1)
        with watch() as watched:
            loss = weighted_loss(model(batch.inputs), (batch.labels, batch.weights), own)
        found.append(watched.without([loss, *model.parameters()]))
    return found


def bytes_held(config: RunConfig) -> dict[str, int]:
    """Bytes of an engine's parts, and the most at once in a step."""
    from tests.megatron_patches.estimate.test_memory import held

    register_all()
    return held(config)
