"""A process that measures: `python -m megatron_patches.benchmark.worker LAUNCH_DIRECTORY --alternations N ...`.

Its group of processes is one configuration and nothing else, so no other's patches, threads or memory are in the
measurement. The result is `measurement.json` in the launch's folder, written by rank 0.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch
import torch.distributed as dist

from data_tools.run_data import RunData
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.benchmark.bare_loop import BareLoop
from megatron_patches.benchmark.nanogpt_style import NanoGPTStyleLoop
from megatron_patches.benchmark.our_loop import OurLoop
from megatron_patches.benchmark.padded import PADDED, padded_launch
from megatron_patches.benchmark.roof import Roof, measure_roof
from megatron_patches.benchmark.transformers_encoder import TransformersLoop
from megatron_patches.benchmark.turns import PROFILED_STEPS
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.parallel.kernels import kernels_of
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups, stop_process_groups
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.profiling.step_profile import StepProfile
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import Launch, text_preparation
from megatron_patches.training.train import training_batches
from megatron_patches.training.trainer import Trainer

PEERS: dict[str, type[BareLoop] | type[NanoGPTStyleLoop] | type[TransformersLoop]] = {
    "loop": BareLoop,
    "nanogpt": NanoGPTStyleLoop,
    "transformers": TransformersLoop,
}
"""of the same samples as ours"""


class Loop(Protocol):
    """One side of a measurement."""

    def step(self) -> None:
        """One optimizer step."""

    def losses(self) -> list[float]:
        """Losses of all steps so far."""


@dataclass
class Side:
    """What one side took and what it learned."""

    seconds: list[float] = field(default_factory=list)
    """of each measured turn"""
    losses: list[float] = field(default_factory=list)
    """of every step from the first, warm-up included"""
    padding: list[float] = field(default_factory=list)
    """share of the step's places that hold no text, of the same steps"""
    memory: int | None = None
    """bytes that its tensors took at most on this GPU, the other side's left out; None on a CPU"""


@dataclass(frozen=True)
class Measurement:
    """Everything the workers found out."""

    ours: Side
    peer: Side | None
    device: str | None
    """name of the GPU, None on a CPU"""
    threads: int
    """that torch computes with, in each process"""
    breakdown: dict[str, float] | None = None
    """seconds of a profiled step by kind, where it was asked for"""
    roof: Roof | None = None
    """of a profiled CPU; that of a GPU is its data sheet's"""


def measure(
    config: RunConfig,
    launch: Launch,
    alternations: int,
    warmup: int,
    steps: int,
    peer: str | None = "loop",
    trace: Path | None = None,
) -> Measurement:
    """Let both loops take turns of `steps` steps, `warmup` turns each unmeasured, on this rank.

    `trace` is where a profile of further steps of ours is written.
    """
    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[config.training.precision], kernels=kernels_of(config.training))
    turns = warmup + alternations
    held = [_allocated(groups.device)]
    loops: list[Loop] = []
    reading: list[OurLoop] = []  # of each loop the one whose samples it reads
    if peer == PADDED:
        beside = padded_launch(launch)
        reading.append(OurLoop(load_resolved(beside.config), beside, groups))
        loops.append(reading[0])
        held.append(_allocated(groups.device))
    elif peer is not None:
        loops.append(PEERS[peer](config, groups, _read_batches(config, groups, turns * steps)))
        held.append(_allocated(groups.device))
    ours = OurLoop(config, launch, groups)
    loops.append(ours)
    reading = [*reading, *[ours] * (len(loops) - len(reading))]
    held.append(_allocated(groups.device))
    try:
        taken, peaks = alternate([loop.step for loop in loops], turns, steps, groups.device)
        # of a turn's peak the other side's tensors are left out: what was allocated when it was made
        others = [held[-1] - (after - before) for before, after in pairwise(held)]
        sides = [
            Side(
                seconds[warmup:], loop.losses(), each.padding(), peak - other if groups.device.type == "cuda" else None
            )
            for seconds, loop, each, peak, other in zip(taken, loops, reading, peaks, others, strict=True)
        ]
        measurement = Measurement(
            sides[-1],
            sides[0] if peer is not None else None,
            torch.cuda.get_device_name(groups.device) if groups.device.type == "cuda" else None,
            torch.get_num_threads(),
            profile_steps(ours.trainer, PROFILED_STEPS, trace) if trace is not None else None,
            _roof(groups) if trace is not None else None,
        )
    finally:
        for each in dict.fromkeys(reading):
            each.close()
    stop_process_groups()
    return measurement


def profile_steps(trainer: Trainer, steps: int, trace: Path) -> dict[str, float]:
    """Train further steps; seconds of one by kind on this rank. Rank 0 writes the trace."""
    found = StepProfile(trainer.groups.device, trainer.batches, trainer.engine)
    found.start()
    for number in range(1, steps + 1):
        trainer.train_step()
        found.end_step(last=number == steps)
    if trainer.is_first_rank:
        found.write(trace)
    return found.seconds_by_kind()


def _roof(groups: ProcessGroups) -> Roof | None:
    if groups.device.type == "cuda":
        return None
    _wait_for_all(groups.device)  # rank 0 has just written a trace: alone the others would find the machine faster
    return measure_roof(groups.dtype)


def _read_batches(config: RunConfig, groups: ProcessGroups, steps: int) -> list[list[MicroBatch]]:
    batches = training_batches(
        config,
        RunData(config.data, CHECKOUT, config.lengths, config.place_after, texts=text_preparation(config)),
        groups,
    )
    try:
        return [batches.at(config.timetable.after(step).samples) for step in range(steps)]
    finally:
        batches.close()


def alternate(
    loops: Sequence[Callable[[], None]], turns: int, steps: int, device: torch.device
) -> tuple[list[list[float]], list[int]]:
    """Seconds of each turn of the loops, and the bytes allocated at most in any turn of each.

    Who goes first changes every time, so none always follows the other.
    """
    seconds: list[list[float]] = [[] for _ in loops]
    peaks = [0] * len(loops)
    order = list(range(len(loops)))
    for turn in range(turns):
        for side in order if turn % 2 == 0 else reversed(order):
            _wait_for_all(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            started = perf_counter()
            for _ in range(steps):
                loops[side]()
            _wait_for_all(device)
            seconds[side].append(perf_counter() - started)
            if device.type == "cuda":
                peaks[side] = max(peaks[side], torch.cuda.max_memory_allocated(device))
    return seconds, peaks


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _wait_for_all(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def main(launch: Launch, options: argparse.Namespace) -> int:
    """The command line; returns its exit code."""
    try:
        join_world(os.environ)
        measurement = measure(
            load_resolved(launch.config), launch, options.alternations, options.warmup, options.steps, options.peer,
            options.trace,
        )  # fmt: skip
    except (TrainyardError, TrainingFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, TrainyardError) else 1
    if os.environ["RANK"] == "0":
        (launch.directory / "measurement.json").write_text(json.dumps(asdict(measurement)))
    return 0


def join_world(environment: "os._Environ[str] | dict[str, str]") -> None:
    """Say which rank this is: as started by `comparison`, by srun, or as a world of one that meets itself.

    Raises:
        TrainyardError: only a part of what srun sets is here.
    """
    if "RANK" in environment:
        return
    if "SLURM_PROCID" in environment and "MASTER_ADDR" in environment:
        names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
        if missing := [theirs for theirs in names.values() if theirs not in environment]:
            raise TrainyardError(f"SLURM_PROCID is set and {', '.join(missing)} not: start it by srun, or unset it")
        environment.update({name: environment[theirs] for name, theirs in names.items()})
        return
    environment.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m megatron_patches.benchmark.worker", allow_abbrev=False)
    parser.add_argument("launch_directory", type=Path)
    parser.add_argument("--alternations", type=int, required=True, help="measured turns of each loop")
    parser.add_argument("--warmup", type=int, required=True, help="turns of each loop before them")
    parser.add_argument("--steps", type=int, required=True, help="steps in a turn")
    parser.add_argument("--peer", choices=[*sorted(PEERS), PADDED], help="the other loop")
    parser.add_argument("--trace", type=Path, help="where a profile of further steps goes")
    found = parser.parse_args()
    sys.exit(main(Launch(found.launch_directory), found))
