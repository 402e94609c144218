"""Tokens a second of a run, beside another loop over the same model where one is named: started and described.

The measurement itself is `benchmark.worker`'s, processes of their own. Torch-free.
"""

import math
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from data_tools.run_data import RunData
from megatron_patches.artefacts.provenance import known_revision
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.batch.fields import TOKENS
from megatron_patches.benchmark.padded import PADDED, TextRead, padded_launch, padded_samples, text_read
from megatron_patches.benchmark.statistics import Ratio, Spread, median_ratio, spread
from megatron_patches.benchmark.turns import PROFILED_STEPS, Turns
from megatron_patches.benchmark.worker_processes import job_nodes, run_workers
from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.hardware.accelerator import gpu_models, has_gpu
from megatron_patches.hardware.machines import cpu_name, peak_tflops
from megatron_patches.launch.device_checks import check_device
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.interface.architecture import FlopsPerToken
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.reading import load_resolved, load_run, to_yaml
from megatron_patches.run.run_directory import Launch, text_preparation
from megatron_patches.run.summary import tokens_per_step

# Both sides differ in one thing, the order in which the squares of the gradient's norm are summed. With equal norms 33
# losses of 33 were equal to the last bit; with the norms as they are, those of the first 20 steps were within 3e-6.
# Later, at the peak of the learning rate, training amplifies a last bit without limit (3e-3 was seen at step 33): the
# last loss says nothing about equality.
COMPARED_STEPS = 20
AGREEMENT = {"fp32": 1e-4, "bf16": 1e-3}
AGREEMENT_OF_OTHERS = 0.05
"""of a peer that draws its weights in another way, or reads other samples: it learns the same, not step by step"""


@dataclass(frozen=True)
class Peer:
    """The other loop, measured in the same turns."""

    name: str
    tokens_per_second: Spread
    ratio: Ratio
    """ours over the peer's"""
    loss_difference: float
    """largest relative difference of both sides' losses, over the first 20 steps; where each reads samples of its own,
    that of their means"""
    final_loss: float
    memory: int | None
    share_ratio: float = 1.0
    """share of places with text in our measured steps, over that in the peer's"""


@dataclass(frozen=True)
class Benchmark:
    """A measurement and what it was made of."""

    run: str
    overrides: list[str]
    turns: Turns
    layout: dict[str, int | bool]
    """tensor, pipeline, data, sequence_parallel, zero_stage"""
    recomputation: str
    precision: str
    compiled: bool | None
    """as the run says; None leaves it to the device"""
    parameters: int
    global_batch_size: int
    micro_batch_size: int
    sequence_length: int
    step_seconds: Spread
    tokens_per_second: Spread
    """of all processes; padding counts for nothing"""
    tflops: FlopsPerToken
    """TFLOP/s of each process at the median, by convention"""
    peak_tflops: float | None
    """dense peak of the GPU in the run's precision; None where it is not known"""
    first_loss: float
    final_loss: float
    memory: int | None
    """bytes allocated at most on rank 0's GPU; None on a CPU"""
    estimated_memory: int
    """bytes that were expected on the largest rank"""
    breakdown: dict[str, float] | None
    """seconds of a profiled step by kind"""
    roof: dict[str, float] | None
    """`tflops` and `bytes_per_second` that a process reached at most in a product and in a copy, measured where a CPU
    was profiled"""
    peer: Peer | None
    hardware: str
    threads: int
    load: float
    """processes that wanted a CPU before the measurement: more than there are CPUs, and others disturbed it"""
    versions: dict[str, str]
    commit: str
    date: str

    @property
    def mfu(self) -> float | None:
        """Share of the peak, by the exact causal count."""
        return self.tflops.causal / self.peak_tflops if self.peak_tflops else None

    @property
    def agrees(self) -> bool:
        """Whether both sides trained the same; if not, their speeds are those of two different things."""
        if self.peer is None:
            return math.isfinite(self.final_loss)
        bound = AGREEMENT[self.precision] if self.peer.name == "loop" else AGREEMENT_OF_OTHERS
        return self.peer.loss_difference <= bound


def measure_run(
    path: Path,
    overrides: Sequence[str],
    turns: Turns,
    threads: int,
    peer: str | None = "loop",
    processes: int | None = None,
    trace: Path | None = None,
) -> Benchmark:
    """Train a run's model in the trainer, and in the peer's loop in turns, on the run's own layout.

    `threads` are shared by the processes of a machine. Nothing is left of it but the trace: its run directory is a
    temporary one.

    Raises:
        TrainyardError: the run, its data or an override is wrong.
        TrainingFailed: a step failed, or a worker died; then the message is the end of what it said.
    """
    measured_steps = (turns.warmup + turns.alternations) * turns.steps + (PROFILED_STEPS if trace else 0)
    config = _for_measuring(path, overrides, measured_steps, peer)
    world = processes or config.parallel.tensor * config.parallel.pipeline
    plan_layout(config, world)
    check_device(config, has_gpu(), gpu_models())
    samples = measured_steps * config.training.global_batch_size
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after, texts=text_preparation(config))
    data.check(config.model.vocabulary, samples, validation_samples=0)
    load = os.getloadavg()[0]
    shared = runs_root() if job_nodes() > 1 else None  # of several nodes all must see it
    if shared is not None:
        shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trainyard-benchmark-", dir=shared) as folder:
        launch = Launch(RunFolder(Path(folder) / config.name).launches / "0001")
        launch.directory.mkdir(parents=True)
        launch.config.write_text(to_yaml(config), encoding="utf-8")
        if peer == PADDED:
            _write_padded(path, overrides, launch, measured_steps)
        measured = run_workers(launch, turns, max(1, threads // world), world, peer, trace)
    return _describe(config, list(overrides), turns, world, load, peer, measured)


def _write_padded(path: Path, overrides: Sequence[str], launch: Launch, measured_steps: int) -> None:
    """The launch beside ours whose samples are padded; its plan is made before workers read it."""
    config = load_resolved(launch.config)
    other = _for_measuring(path, [*overrides, padded_samples(config)], measured_steps, PADDED)
    samples = measured_steps * other.training.global_batch_size
    RunData(other.data, CHECKOUT, other.lengths, other.place_after).check(other.model.vocabulary, samples, 0)
    beside = padded_launch(launch)
    beside.directory.mkdir(parents=True)
    beside.config.write_text(to_yaml(other), encoding="utf-8")


def _for_measuring(path: Path, overrides: Sequence[str], measured_steps: int, peer: str | None) -> RunConfig:
    """The run without validation, with its only save beyond the end of the measurement."""
    asked = load_run(path, overrides)
    if peer is not None and asked.training.precision not in AGREEMENT:
        raise TrainyardError(
            f"{path.stem}: bench compares in {' or '.join(AGREEMENT)}: a bare loop has no loss scale, so in "
            f"{asked.training.precision} it would train something else; add --training.precision bf16 "
            "--training.loss_scale null, or measure alone (--peer none)"
        )
    plain = asked.objective.inputs.names == (TOKENS.name,) and isinstance(asked.model, GPTConfig)
    if peer is not None and asked.parallel.pipeline > 1 and not plain:
        raise TrainyardError(
            f"{path.stem}: the peer's pipeline is a GPT's and sends no contexts of tokens; measure alone (--peer none)"
        )
    steps = max(asked.timetable.steps, measured_steps + 1)
    changes = {
        "training.steps": steps,
        "training.samples": "null",
        "training.tokens": "null",
        "training.extend_to": "null",
        "training.extend_by": "null",
        "schedule.extensions": "null",
        "training.batch_ramp": "null",  # its smaller batches would be another measurement
        "checkpoint.every_steps": steps,
        "evaluation": "null",
        "logging.wandb": "null",
        "profile": "null",  # --profile makes one after what is measured
    }
    return load_run(path, [*overrides, *(f"--{key}={value}" for key, value in changes.items())])


def _describe(
    config: RunConfig,
    overrides: list[str],
    turns: Turns,
    world: int,
    load: float,
    peer: str | None,
    found: dict[str, Any],
) -> Benchmark:
    layout = plan_layout(config, world)
    ours = found["ours"]
    read = _read(ours, config, turns)
    step_seconds = spread([seconds / turns.steps for seconds in ours["seconds"]])
    computed = tokens_per_step(config) / step_seconds.median / world / 1e12
    device = found["device"]
    return Benchmark(
        run=config.name,
        overrides=overrides,
        turns=turns,
        layout={
            "tensor": layout.tensor,
            "pipeline": layout.pipeline,
            "data": layout.data,
            "sequence_parallel": layout.sequence_parallel,
            "zero_stage": config.parallel.zero_stage,
        },
        recomputation=config.training.recomputation,
        precision=config.training.precision,
        compiled=config.training.compile,
        parameters=count_parameters(config.model, config.lengths).total,
        global_batch_size=config.training.global_batch_size,
        micro_batch_size=config.training.micro_batch_size,
        sequence_length=config.lengths.counted,
        step_seconds=step_seconds,
        tokens_per_second=spread(read.rates),
        tflops=FlopsPerToken(**{name: computed * each for name, each in asdict(config.flops).items()}),
        peak_tflops=peak_tflops(device or "", config.training.precision),
        first_loss=ours["losses"][0],
        final_loss=ours["losses"][-1],
        memory=ours["memory"],
        estimated_memory=estimate_memory(config, layout, device="cuda" if device else "cpu").largest.total,
        breakdown=found["breakdown"],
        roof=found["roof"],
        peer=_describe_peer(peer, config, turns, ours, found["peer"]) if peer else None,
        hardware=f"{world} x {device}" if device else cpu_name(),
        threads=found["threads"],
        load=load,
        versions={"python": platform.python_version()}
        | {package: metadata.version(package) for package in ("torch", "deepspeed", "megatron-core")},
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="minutes"),
    )


def _describe_peer(name: str, config: RunConfig, turns: Turns, ours: dict[str, Any], peer: dict[str, Any]) -> Peer:
    read, beside = _read(ours, config, turns), _read(peer, config, turns)
    losses, others = (side["losses"][:COMPARED_STEPS] for side in (ours, peer))
    if name == PADDED:  # its steps have fewer targets: a step's loss varies by some percent with its samples alone
        losses, others = [fmean(losses)], [fmean(others)]
    return Peer(
        name=name,
        tokens_per_second=spread(beside.rates),
        ratio=median_ratio(read.rates, beside.rates),
        loss_difference=largest_difference(losses, others),
        final_loss=peer["losses"][-1],
        memory=peer["memory"],
        share_ratio=read.share / beside.share,
    )


def _read(side: dict[str, Any], config: RunConfig, turns: Turns) -> TextRead:
    return text_read(side["seconds"], side["padding"], turns.steps, tokens_per_step(config))


def _commit() -> str:
    """The checkout's revision, with a + where it was changed; n/a where it is not known."""
    code = known_revision(CHECKOUT).text
    return "n/a" if code is None else code[:12] + "+" * code.endswith("+changes")


def largest_difference(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Relative to the reference; nan where one of the losses is no number."""
    differences = [abs(loss - other) / abs(other) for loss, other in zip(losses, reference, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.nan
