"""An estimate for people. Torch-free."""

from collections.abc import Iterator

from megatron_patches.estimate.memory import StageMemory
from megatron_patches.estimate.report import Duration, Estimate
from megatron_patches.run.config import RunConfig
from megatron_patches.run.summary import aligned, describe_layout, tokens_per_step
from megatron_patches.sizes import counted, readable


def as_text(found: Estimate, width: int | None = None) -> str:
    """One label a line."""
    lines = [*_model(found), *_memory(found), *_traffic(found), *_time(found)]
    return aligned(lines, width)


def _model(found: Estimate) -> Iterator[tuple[str, str]]:
    config, flops = found.config, found.flops
    largest = found.memory.largest.parameters
    yield "run", config.name
    yield "model", config.architecture.describe(config.model)
    active = f"{found.active:,} multiplied with each token, {largest:,} on the largest rank"
    yield "parameters", f"{found.parameters:,}; {active}"
    yield from describe_layout(config, found.layout)
    yield "FLOPs a token", f"{_flops(flops.palm)} PaLM (6N + 12LHQT, attention whole)"
    yield "", f"{_flops(flops.bigscience)} BigScience's exact formula, with what recomputation repeats"
    yield "", f"{_flops(flops.causal)} exact, {_counted_exactly(config)}"
    yield "", f"{_flops(flops.computed)} given to the GPU, with what recomputation repeats"
    yield "FLOPs a step", f"{_flops(flops.causal * tokens_per_step(config))} ({_exact(config)})"


def _exact(config: RunConfig) -> str:
    """What the exact count is called: of a model whose tokens see each other attention is whole."""
    return "exact" if config.objective.inputs.attention in ("full", "documents") else "exact causal"


def _counted_exactly(config: RunConfig) -> str:
    if _exact(config) != "exact":
        return "of attention what causality keeps"
    picked, whole = config.lengths.picked, config.data.sequence_length
    return "attention whole" + (f", logits of {picked:,} of {whole:,} places" if picked is not None else "")


def _memory(found: Estimate) -> Iterator[tuple[str, str]]:
    memory = found.memory
    stages = memory.stages if len({stage.total for stage in memory.stages}) > 1 else memory.stages[:1]
    shown = sorted({stages[0].stage: stages[0], memory.largest.stage: memory.largest, stages[-1].stage: stages[-1]})
    for number in shown:
        yield f"memory, stage {number}" if len(memory.stages) > 1 else "memory a rank", _parts(memory.stages[number])
    kinds = ", ".join(f"{kind} {readable(total)}" for kind, total in found.totals.items())
    yield "by recomputation", f"{kinds} on the largest rank"
    if found.host_copy:
        yield "host memory", f"{readable(found.host_copy)} a process, the checkpoint's copy"
    hardware = found.machines.hardware
    if hardware is None:
        yield "fits", "n/a: the GPU is not known (--gpu)"
        return
    room = hardware.usable_memory
    verdict = "yes" if memory.largest.total <= room else "NO"
    share = f"{readable(memory.largest.total)} of {readable(room)}"
    yield "fits", f"{verdict}: {share} that tensors can take of a {hardware.name}'s {readable(hardware.memory)}"


def _parts(stage: StageMemory) -> str:
    waiting = f" ({stage.in_flight} micro-batches in flight)" if stage.in_flight > 1 else ""
    parts = {
        "weights": stage.weights,
        "gradients": stage.gradients,
        "optimizer": stage.optimizer,
        "buffers": stage.buffers,
        f"activations{waiting}": stage.kept * stage.in_flight,
        "logits and loss": stage.logits,
        "a block's backward pass": stage.working,
        "tables": stage.constants,
    }
    named = ", ".join(f"{name} {readable(size)}" for name, size in parts.items() if size)
    return f"{readable(stage.total)} at most at once: {named}"


def _traffic(found: Estimate) -> Iterator[tuple[str, str]]:
    for each in found.traffic:
        amount = f"{readable(each.bytes)} in {each.messages:,} messages a step"
        yield f"{each.axis} parallel", f"{amount}, {each.what}, over {counted(each.ranks, 'rank')} {each.link}"
    if found.layout.pipeline > 1:
        yield "pipeline bubble", f"{found.bubble:.1%} of a step"


def _time(found: Estimate) -> Iterator[tuple[str, str]]:
    size = found.checkpoint
    yield "checkpoint", f"{readable(size.full)}, weights alone {readable(size.weights)}"
    if found.duration is None:
        yield "time", "n/a: no speed is known for this GPU and precision (--tflops gives one)"
        return
    yield from _duration(found, found.duration)


def _duration(found: Estimate, duration: Duration) -> Iterator[tuple[str, str]]:
    yield "step", f"{duration.step_seconds:.4g} s, {duration.tokens_per_second:,.0f} tokens/s ({duration.origin})"
    spent = {kind: seconds for kind, seconds in duration.by_kind.items() if seconds > 0.005 * duration.step_seconds}
    if spent:
        shares = (f"{kind} {seconds / duration.step_seconds:.0%}" for kind, seconds in spent.items())
        yield "of which", ", ".join(shares)
    rates, exact = duration.tflops, _exact(found.config)
    mfu = f"; MFU {duration.mfu:.1%} by the {exact} count" if duration.mfu is not None else "; MFU n/a"
    each = f"{rates['palm']:.1f} PaLM, {rates['bigscience']:.1f} BigScience, {rates['causal']:.1f} {exact}"
    yield "TFLOP/s a GPU", f"{each}{mfu}"
    yield "run", f"{duration.days:,.2f} days for {found.config.timetable.end.tokens:,} tokens"
    if duration.dollars is not None:
        yield "cost", f"${duration.dollars:,.0f} on {counted(found.layout.world_size, 'GPU')}"


def _flops(count: float) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.4g} {unit}FLOP"
    return f"{count:.4g} FLOP"
