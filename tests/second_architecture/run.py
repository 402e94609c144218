"""Runs of two stacks on the small dataset, and what each rank of a test does with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_patches.config import load_run
from megatron_patches.run_config import RunConfig
from tests.second_architecture.register import register_all
from tests.small_engine import SmallEngine, Steps, groups_of
from tests.small_training import SmallData, train_launch

RUN_YAML = """
why: a second architecture
model: {{name: two_stacks, encoder_blocks: 3, decoder_blocks: 2, width: 32, heads: 4, features: 64, vocab_size: 384}}
data: {{path: {folder}/text, tokenizer: {folder}/tokenizer, split: "8,2", sequence_length: 16}}
objective: {{name: second_half, encoder_share: 0.75}}
training: {{steps: 8, global_batch_size: 12, micro_batch_size: 6, precision: fp32, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-2, weight_decay: 0.1, gradient_clip: 0.05}}
schedule: {{name: cosine, warmup: 2, final_learning_rate: 1e-3}}
checkpoint: {{every_steps: 3}}
evaluation: {{every_steps: 4, samples: 10}}
"""


def two_stacks_run(
    data: SmallData, folder: Path, overrides: Sequence[str] = (), name: str = "tr900b-60K-two"
) -> RunConfig:
    """A run on this data, its YAML written to a folder."""
    register_all()
    path = folder / "tr900-tests" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RUN_YAML.format(folder=data.folder))
    return load_run(path, overrides)


def train_two_stacks(launch_directory: str) -> None:
    """One rank of a launch, for `tests.ranks`."""
    register_all()
    train_launch(launch_directory)


def record_two_stacks(configs: Sequence[RunConfig], steps: int) -> list[tuple[Steps, dict[str, Any]]]:
    """Steps of each run, all of one layout in one set of process groups, and this rank's trained weights.

    A weight is its box in the whole, and its numbers; under ZeRO 3 and for stages that hold none of it there are none.
    """
    register_all()
    groups = groups_of(configs[0])
    found = []
    for config in configs:
        small = SmallEngine(config, groups)
        seen = small.train(steps)
        small.batches.close()
        weights = {
            f"{piece.name} {piece.start}": (piece.slice, piece.start, piece.tensor.numpy().copy())
            for piece in small.engine.state()
            if piece.kind == "weight"
        }
        found.append((seen, weights))
    return found
