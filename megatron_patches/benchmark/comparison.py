"""Tokens a second of a run beside another loop over the same model: started, compared and described. Torch-free.

The measurement itself is `benchmark_worker`'s, a process of its own.
"""

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from data_tools.errors import TrainingFailed, TrainyardError
from data_tools.run_data import RunData
from megatron_patches.benchmark.statistics import Ratio, Spread, median_ratio, spread
from megatron_patches.config import RunConfig, load_run, to_yaml
from megatron_patches.flops import training_flops_per_token
from megatron_patches.hardware import peak_tflops
from megatron_patches.parallel.parallel_config import ParallelConfig
from megatron_patches.parameter_count import count_parameters
from megatron_patches.run_directory import CHECKOUT, Launch
from megatron_patches.run_summary import aligned, tokens_per_step

WORKER = "megatron_patches.benchmark.worker"

# Both sides differ in one thing, the order in which the squares of the gradient's norm are summed. With equal norms 33
# losses of 33 were equal to the last bit; with the norms as they are, those of the first 20 steps were within 3e-6.
# Later, at the peak of the learning rate, training amplifies a last bit without limit (3e-3 was seen at step 33): the
# last loss says nothing about equality.
COMPARED_STEPS = 20
AGREEMENT = {"fp32": 1e-4, "bf16": 1e-3}


@dataclass(frozen=True)
class Turns:
    """How long a measurement is."""

    alternations: int
    """measured turns of each side"""
    warmup: int
    """turns of each side before them, left out"""
    steps: int
    """optimizer steps in a turn"""


@dataclass(frozen=True)
class Benchmark:
    """A measurement and what it was made of."""

    run: str
    overrides: list[str]
    overridden_layout: str | None
    """layout that the run asks for, where it is not the one that was measured"""
    peer: str
    turns: Turns
    zero_stage: int
    precision: str
    parameters: int
    global_batch_size: int
    micro_batch_size: int
    sequence_length: int
    tokens_per_second: Spread
    peer_tokens_per_second: Spread
    ratio: Ratio
    """ours over peer"""
    tflops: float
    """ours, at the median: work of forward and backward pass as `flops.py` counts it"""
    peak_tflops: float | None
    """dense peak of the GPU in 16 bits; None where it is not known or not the one to compare with: on a CPU, in fp32"""
    loss_difference: float
    """largest relative difference of both sides' losses, over the first 20 steps"""
    final_loss: float
    peer_final_loss: float
    hardware: str
    threads: int
    versions: dict[str, str]
    date: str

    @property
    def mfu(self) -> float | None:
        """Share of the peak that the model's own FLOPs reach."""
        return self.tflops / self.peak_tflops if self.peak_tflops else None

    @property
    def agrees(self) -> bool:
        """Whether both sides trained the same; if not, their speeds are those of two different things."""
        return self.loss_difference <= AGREEMENT[self.precision]


def compare(path: Path, overrides: Sequence[str], turns: Turns, threads: int) -> Benchmark:
    """Train a run's model in the trainer and in a bare PyTorch loop, in turns and in one process of `threads` threads.

    Nothing is left of it: its run directory is a temporary one.

    Raises:
        TrainyardError: the run, its data or an override is wrong.
        TrainingFailed: a step failed, or the worker died; then the message is the end of what it said.
    """
    measured_steps = (turns.warmup + turns.alternations) * turns.steps
    config = _for_measuring(path, overrides, measured_steps)
    samples = measured_steps * config.training.global_batch_size
    RunData(config.data, CHECKOUT).check(config.model.vocab_size, samples, validation_samples=0)
    with tempfile.TemporaryDirectory(prefix="trainyard-benchmark-") as folder:
        launch = Launch(Path(folder) / config.name / "launches" / "0001")
        launch.directory.mkdir(parents=True)
        launch.config.write_text(to_yaml(config), encoding="utf-8")
        measured = _run_worker(launch, turns, threads)
    return _describe(load_run(path).parallel, config, list(overrides), turns, measured)


def _for_measuring(path: Path, overrides: Sequence[str], measured_steps: int) -> RunConfig:
    """The run in one process, without validation, with its only save beyond the end of the measurement."""
    one_process = ["--parallel.tensor=1", "--parallel.pipeline=1", "--parallel.pipeline_partition=transformer"]
    one_process += ["--parallel.sequence_parallel=false"]
    asked = load_run(path, [*one_process, *overrides])
    if asked.parallel.tensor * asked.parallel.pipeline > 1:
        raise TrainyardError(
            f"{path.stem}: bench measures one process; leave out --parallel.tensor and --parallel.pipeline"
        )
    if asked.training.precision not in AGREEMENT:
        raise TrainyardError(
            f"{path.stem}: bench compares in {' or '.join(AGREEMENT)}: a bare loop has no loss scale, so in "
            f"{asked.training.precision} it would train something else; add --training.precision bf16 "
            "--training.loss_scale null"
        )
    steps = max(asked.timetable.steps, measured_steps + 1)
    changes = {
        "training.steps": steps,
        "training.samples": "null",
        "training.tokens": "null",
        "training.batch_ramp": "null",  # its smaller batches would be another measurement
        "checkpoint.every_steps": steps,
        "evaluation": "null",
        "logging.wandb": "null",
    }
    return load_run(path, [*one_process, *overrides, *(f"--{key}={value}" for key, value in changes.items())])


def _run_worker(launch: Launch, turns: Turns, threads: int) -> dict:
    command = [
        *(sys.executable, "-P", "-m", WORKER, str(launch.directory), "--alternations", str(turns.alternations)),
        *("--warmup", str(turns.warmup), "--steps", str(turns.steps)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(CHECKOUT)}
    log = launch.directory / "worker.log"
    with log.open("w") as output:  # the trainer's own log lines go where they would in a job: to a file
        done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if done.returncode == 2:
        raise TrainyardError("\n".join(errors))
    if done.returncode:
        raise TrainingFailed("\n".join(errors or [*lines[-30:], f"the measurement ended with code {done.returncode}"]))
    return json.loads((launch.directory / "measurement.json").read_text())


def _describe(
    asked: ParallelConfig, config: RunConfig, overrides: list[str], turns: Turns, measured: dict
) -> Benchmark:
    tokens = tokens_per_step(config) * turns.steps
    ours, peer = (measured[side] for side in ("ours", "peer"))
    speed = spread([tokens / seconds for seconds in ours["seconds"]])
    tflops = speed.median * training_flops_per_token(config.model, config.data.sequence_length) / 1e12
    peak = peak_tflops(measured["device"] or "", config.training.precision)
    single = asked.tensor * asked.pipeline == 1
    return Benchmark(
        run=config.name,
        overrides=overrides,
        overridden_layout=None if single else f"tensor {asked.tensor} x pipeline {asked.pipeline}",
        peer="loop",
        turns=turns,
        zero_stage=config.parallel.zero_stage,
        precision=config.training.precision,
        parameters=count_parameters(config.model, config.data.sequence_length).total,
        global_batch_size=config.training.global_batch_size,
        micro_batch_size=config.training.micro_batch_size,
        sequence_length=config.data.sequence_length,
        tokens_per_second=speed,
        peer_tokens_per_second=spread([tokens / seconds for seconds in peer["seconds"]]),
        ratio=median_ratio(peer["seconds"], ours["seconds"]),
        tflops=tflops,
        peak_tflops=peak,
        loss_difference=largest_difference(ours["losses"][:COMPARED_STEPS], peer["losses"][:COMPARED_STEPS]),
        final_loss=ours["losses"][-1],
        peer_final_loss=peer["losses"][-1],
        hardware=measured["device"] or cpu_name(),
        threads=measured["threads"],
        versions={"python": platform.python_version()}
        | {package: metadata.version(package) for package in ("torch", "deepspeed", "megatron-core")},
        date=datetime.now(UTC).isoformat(timespec="minutes"),
    )


def largest_difference(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Relative to the reference; nan where one of the losses is no number."""
    differences = [abs(loss - other) / abs(other) for loss, other in zip(losses, reference, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.nan


def cpu_name() -> str:
    """Model and number of this machine's CPUs, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.processor() or platform.machine())}, {os.cpu_count()} CPUs"


def as_text(found: Benchmark) -> str:
    """The comparison for people, one label a line."""
    turns = found.turns
    layout = f"1 process, ZeRO {found.zero_stage}, {found.precision}"
    if found.overridden_layout:
        layout += f" (the run asks for {found.overridden_layout}; overridden)"
    mfu = f", MFU {found.mfu:.1%} of {found.peak_tflops:g}" if found.peak_tflops else ""
    verdict = "they agree" if found.agrees else "THEY DO NOT AGREE: the ratio compares two different trainings"
    lines = [
        ("run", " ".join([found.run, *found.overrides])),
        ("model", f"{found.parameters:,} parameters"),
        ("layout", layout),
        ("batch", f"{found.global_batch_size} x {found.sequence_length} tokens, micro-batch {found.micro_batch_size}"),
        ("ours", f"the trainer's step with every callback of a launch: {_speed(found.tokens_per_second)}"),
        ("peer", f"a bare PyTorch loop, same module and optimizer: {_speed(found.peer_tokens_per_second)}"),
        (
            "ours / peer",
            f"{found.ratio.median:.3f}, 95 % interval {found.ratio.low:.3f} to {found.ratio.high:.3f} "
            f"(median of {turns.alternations} alternations of {turns.steps} steps after {turns.warmup} of warm-up)",
        ),
        ("work", f"{found.tflops:.3g} TFLOP/s of forward and backward pass, causal attention counted whole{mfu}"),
        (
            "losses",
            f"{verdict} (largest relative difference {found.loss_difference:.1e} in the first {COMPARED_STEPS} steps); "
            f"the last: ours {found.final_loss:.6f}, peer {found.peer_final_loss:.6f}",
        ),
        ("hardware", f"{found.hardware}, {found.threads} threads"),
        ("versions", ", ".join(f"{package} {version}" for package, version in found.versions.items())),
        ("date", found.date),
    ]
    return aligned(lines)


def _speed(found: Spread) -> str:
    return f"{found.median:,.0f} tokens/s (quartiles {found.low:,.0f} to {found.high:,.0f})"
