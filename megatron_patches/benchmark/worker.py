"""The process that measures: `python -m megatron_patches.benchmark.worker LAUNCH_DIRECTORY --alternations N ...`.

It is one configuration and nothing else, so no other's patches, threads or memory are in the measurement. Its result is
`measurement.json` in the launch's folder.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from data_tools.errors import TrainingFailed, TrainyardError
from data_tools.run_data import RunData
from megatron_patches.callbacks.callback import Callback
from megatron_patches.config import RunConfig, load_resolved
from megatron_patches.engine.build import PRECISIONS, compiles
from megatron_patches.engine.deepspeed_engine import mixed_precision_optimizer
from megatron_patches.engine.optimizer_placement import place_optimizer
from megatron_patches.layout import Layout
from megatron_patches.models.build import PlainModel, canonical_parameters
from megatron_patches.models.compilation import compile_blocks
from megatron_patches.models.gpt import gpt_layers
from megatron_patches.objectives.loss import build_loss
from megatron_patches.objectives.micro_batch import MicroBatch
from megatron_patches.optim.build import select_trainable
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups, stop_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.progress import StepRecord
from megatron_patches.run_directory import CHECKOUT, Launch
from megatron_patches.train import build_trainer, training_batches
from megatron_patches.trainer import Trainer


@dataclass
class Side:
    """What one side of the comparison took and what it learned."""

    seconds: list[float] = field(default_factory=list)
    """of each measured turn"""
    losses: list[float] = field(default_factory=list)
    """of every step from the first, warm-up included"""


@dataclass(frozen=True)
class Measurement:
    """Everything the worker found out."""

    ours: Side
    peer: Side
    device: str | None
    """name of the GPU, None on a CPU"""
    threads: int
    """that torch computes with"""


class Losses(Callback):
    """Keeps the losses that the trainer tells of."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        self.values.append(record.loss)


class OurLoop:
    """The trainer's own step with every callback of a launch: events, log, TensorBoard, signals."""

    def __init__(self, config: RunConfig, launch: Launch, groups: ProcessGroups) -> None:
        self.trainer, _ = build_trainer(config, launch, groups)
        self._losses = Losses()
        self.trainer.callbacks = [*self.trainer.callbacks, self._losses]
        for callback in self.trainer.callbacks:
            callback.on_start(self.trainer)

    def step(self) -> None:
        """One optimizer step."""
        self.trainer.train_step()
        if self.trainer.stop_reason is not None:
            raise TrainingFailed(f"the measurement was stopped by {self.trainer.stop_reason}; start it again")

    def losses(self) -> list[float]:
        """Losses of all steps so far."""
        self.trainer.read_numbers()
        return self._losses.values

    def close(self) -> None:
        """Release threads and files."""
        self.trainer.batches.close()
        for callback in self.trainer.callbacks:
            callback.close()


class BareLoop:
    """A loop as one writes it in PyTorch, over the same module and optimizer, without DeepSpeed.

    It has less to do than a real one: its batches lie in memory, it writes nothing, it reads no loss before the end.
    """

    def __init__(self, config: RunConfig, groups: ProcessGroups, batches: list[list[MicroBatch]]) -> None:
        self._config = config
        self._batches = batches
        self._device = groups.device
        self._randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
        specs = gpt_layers(
            config.model, config.data.sequence_length, groups, self._randomness, config.training.recomputation
        )
        model = config.model
        self._draws = max(model.hidden_dropout, model.attention_dropout, model.dropout_of_embedding) > 0
        self._model = PlainModel(specs, config.training.seed).to(groups.device)
        parameters = canonical_parameters(self._model)
        select_trainable(config.training, parameters)
        if compiles(config, groups):
            compile_blocks(self._model)
        self._optimizer = mixed_precision_optimizer(config.optimizer, parameters, 0, groups)
        place_optimizer(0, parameters, self._optimizer, None, groups).make_ready()
        self._loss = build_loss(config.objective, groups)
        self._losses: list[Tensor] = []

    def step(self) -> None:
        """One optimizer step."""
        config, step = self._config, len(self._losses) + 1
        if self._draws:
            self._randomness.start_step(step)  # the same draws as ours, so that the losses can be compared
        self._losses.append(torch.stack([self._backward(batch) for batch in self._batches[step - 1]]).sum())
        if config.optimizer.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), config.optimizer.gradient_clip)
        rate = config.learning_rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        # Last, as in ours: gradients kept between turns are memory that the other side has to do without. At 10M
        # parameters it then grew the heap and gave it back in each of its turns: 20,000 page faults, 3 % of a step.
        self._model.zero_grad(set_to_none=True)  # of the module: MasterWeights would forget its copies' alone

    def _backward(self, batch: MicroBatch) -> Tensor:
        batch = batch.to(self._device)
        loss = self._loss(self._model(batch.tokens, batch.context), (batch.labels, batch.weights))
        loss.backward()
        return loss.detach()

    def losses(self) -> list[float]:
        """Losses of all steps so far."""
        return torch.stack(self._losses).tolist()


def measure(config: RunConfig, launch: Launch, alternations: int, warmup: int, steps: int) -> Measurement:
    """Let both loops take turns of `steps` steps, `warmup` turns each unmeasured, in this process."""
    groups = start_process_groups(Layout(tensor=1, pipeline=1, data=1), PRECISIONS[config.training.precision])
    turns = warmup + alternations
    peer = BareLoop(config, groups, _read_batches(config, groups, turns * steps))
    ours = OurLoop(config, launch, groups)
    try:
        seconds = alternate((ours.step, peer.step), turns, steps, groups.device)
        measurement = Measurement(
            Side(seconds[0][warmup:], ours.losses()),
            Side(seconds[1][warmup:], peer.losses()),
            torch.cuda.get_device_name(groups.device) if groups.device.type == "cuda" else None,
            torch.get_num_threads(),
        )
    finally:
        ours.close()
    stop_process_groups()
    return measurement


def _read_batches(config: RunConfig, groups: ProcessGroups, steps: int) -> list[list[MicroBatch]]:
    batches = training_batches(config, RunData(config.data, CHECKOUT), groups)
    try:
        return [batches.at(config.timetable.after(step).samples) for step in range(steps)]
    finally:
        batches.close()


def alternate(
    loops: tuple[Callable[[], None], Callable[[], None]], turns: int, steps: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of each turn of both loops; who goes first changes every time, so neither always follows the other."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            _wait_for(device)
            started = perf_counter()
            for _ in range(steps):
                loops[side]()
            _wait_for(device)
            seconds[side].append(perf_counter() - started)
    return seconds


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(launch: Launch, alternations: int, warmup: int, steps: int) -> int:
    """The command line; returns its exit code."""
    # a world of one: it meets itself at a port of the system's choice
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    try:
        measurement = measure(load_resolved(launch.config), launch, alternations, warmup, steps)
    except (TrainyardError, TrainingFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, TrainyardError) else 1
    (launch.directory / "measurement.json").write_text(json.dumps(asdict(measurement)))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m megatron_patches.benchmark.worker", allow_abbrev=False)
    parser.add_argument("launch_directory", type=Path)
    parser.add_argument("--alternations", type=int, required=True, help="measured turns of each loop")
    parser.add_argument("--warmup", type=int, required=True, help="turns of each loop before them")
    parser.add_argument("--steps", type=int, required=True, help="steps in a turn")
    options = parser.parse_args()
    sys.exit(main(Launch(options.launch_directory), options.alternations, options.warmup, options.steps))
