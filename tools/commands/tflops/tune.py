"""`tools/tflops tune`: the fastest layout of a run, predicted, explained, measured, written."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.benchmark.comparison import measure_run
from megatron_patches.benchmark.turns import Turns
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.report import Machines
from megatron_patches.estimate.step_time import Speeds
from megatron_patches.launch.rank_settings import available_cpus
from megatron_patches.report.record import append, measured, read_rows, record_files
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.sizes import counted, readable
from megatron_patches.submission.submit import submit
from megatron_patches.tuning.calibration import Measured, Trust, calibrate, trust
from megatron_patches.tuning.ranking import Ranked, apart, explain, rank
from megatron_patches.tuning.run_file import section_text, write_layout
from megatron_patches.tuning.slurm_array import array_script
from tools.commands.tflops.speeds import machines_of, measured_layouts, usual_speeds
from tools.run_files.catalogue import find_run

CPU = "cpu"


@dataclass(frozen=True)
class TuneRequest:
    """What to tune."""

    run: str
    overrides: list[str]
    nodes: int
    gpus_per_node: int
    gpu: str
    """a GPU's name, or `cpu`"""
    show: int
    measure: int
    spread: int
    record: Path | None
    slurm: Path | None
    submit: bool
    write: bool


def tune(asked: TuneRequest) -> Iterator[str]:
    """Do it, and say what was found, paragraph by paragraph."""
    if asked.submit and asked.slurm is None:
        raise TrainyardError("--submit submits what --slurm FILE writes; name the file")
    path = find_run(asked.run, CHECKOUT)
    config = load_run(path, asked.overrides)
    machines = machines_of(config, asked.nodes, asked.gpus_per_node, None if asked.gpu.lower() == CPU else asked.gpu)
    usual = usual_speeds(config, machines.hardware)
    known = [*record_files(CHECKOUT), *([asked.record] if asked.record and asked.record.is_file() else [])]
    learned = measured_layouts(read_rows(dict.fromkeys(known)), machines)
    ranked = _rank(config, machines, calibrate(learned, usual))
    for each in apart(ranked, asked.spread):
        learned.append(_measure(path, config, asked, machines, each))
    if asked.spread:
        ranked = _rank(config, machines, calibrate(learned, usual))
    best = [(_measure(path, config, asked, machines, each).seconds, each) for each in ranked[: asked.measure]]
    speeds = calibrate(learned, usual)
    yield _describe(config, machines, ranked, speeds, asked.show)
    if len(learned) > 2:
        yield _trust(trust(learned, usual))
    if best:
        yield "\n".join(
            f"measured {seconds:.4g} s, predicted {each.seconds:.4g} s: {each.candidate.describe()}"
            for seconds, each in best
        )
    chosen = min(best, key=lambda pair: pair[0])[1] if best else ranked[0]
    uneven = config.parallel.pipeline_partition != "transformer" and chosen.candidate.pipeline == 1
    yield section_text(chosen.candidate, uneven)
    if asked.slurm is not None:
        record = asked.record or Path("benchmarks") / f"{config.name}-tune.jsonl"
        text = array_script(
            config, asked.run, asked.overrides, ranked[: asked.show], asked.nodes, asked.gpus_per_node, record
        )
        asked.slurm.write_text(text, encoding="utf-8")
        if asked.submit:
            done = submit(asked.slurm)
            there = "was submitted already" if done.was_there else "is submitted"
            yield f"wrote {asked.slurm}: job {done.job} {there} ({done.key})"
        else:
            yield f"wrote {asked.slurm}: tools/submit {asked.slurm}"
    if asked.write:
        write_layout(path, chosen.candidate)
        yield f"wrote the layout into {path}"


def _rank(config: RunConfig, machines: Machines, speeds: Speeds) -> list[Ranked]:
    memory = machines.hardware.usable_memory if machines.hardware else None
    device = "cuda" if machines.hardware else "cpu"
    return rank(config, machines.gpus, machines.gpus_per_node, memory, speeds, device)  # type: ignore[arg-type]


def _measure(path: Path, config: RunConfig, asked: TuneRequest, machines: Machines, ranked: Ranked) -> Measured:
    """A layout's step here, alone; it goes to the record."""
    arguments = [*asked.overrides, *ranked.candidate.overrides(config)]
    print(f"measuring {ranked.candidate.describe()}", file=sys.stderr)
    found = measure_run(path, arguments, Turns(8, 2, 1), available_cpus(), None, machines.gpus)
    if asked.record is not None:
        command = ["tools/tflops", "bench", path.stem, *arguments, "--peer", "none", "--processes", str(machines.gpus)]
        append(asked.record, measured("tune", " ".join([path.stem, *arguments]), command, found))
    return Measured(ranked.work, found.step_seconds.median)


def _describe(config: RunConfig, machines: Machines, ranked: Sequence[Ranked], speeds: Speeds, show: int) -> str:
    first = ranked[0]
    lines = [
        f"{config.name} on {counted(machines.gpus, 'process', 'processes')}: {len(ranked):,} layouts fit; speeds "
        f"{speeds.origin}",
        f" 1. {first.candidate.describe()}: {first.seconds:.4g} s a step, {readable(first.memory)}",
    ]
    spent = first.work.by_kind(speeds)
    largest = sorted(spent, key=lambda kind: -spent[kind])[:3]
    lines.append("    of which " + ", ".join(f"{kind} {spent[kind] / first.seconds:.0%}" for kind in largest))
    for place, other in enumerate(ranked[1:show], start=2):
        lines.append(f"{place:2}. {other.candidate.describe()}: {explain(first, other, speeds)}")
    return "\n".join(lines)


def _trust(found: Trust) -> str:
    return (
        f"{found.layouts} measured layouts, each predicted without itself: Kendall's tau {found.kendall_tau:.2f}, the "
        f"first choice {found.regret:.1%} behind the fastest measured, median error {found.median_error:.1%}"
    )
