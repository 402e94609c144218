"""A measurement for people. Torch-free."""

from collections.abc import Iterator

from megatron_patches.benchmark.comparison import COMPARED_STEPS, Benchmark, Peer
from megatron_patches.benchmark.statistics import Spread
from megatron_patches.profiling.time_breakdown import describe_breakdown
from megatron_patches.run.summary import aligned
from megatron_patches.sizes import counted, readable

_PEERS = {
    "loop": "a bare PyTorch loop, same module and optimizer",
    "nanogpt": "nanoGPT-style: another GPT-2, compiled whole, autocast",
    "transformers": "transformers' EuroBERT in a plain loop, all logits",
    "padded": "the same trainer and documents without packing, each padded to a whole sample",
}


def as_text(found: Benchmark) -> str:
    """One label a line."""
    return aligned([*_what(found), *_speed(found), *(_beside(found, found.peer) if found.peer else []), *_where(found)])


def describe_layout(layout: dict[str, int | bool]) -> str:
    """For example `TP 2 + SP, PP 1, DP 4, ZeRO 1`."""
    sequence = " + SP" if layout["sequence_parallel"] else ""
    axes = f"TP {layout['tensor']}{sequence}, PP {layout['pipeline']}, DP {layout['data']}"
    return f"{axes}, ZeRO {layout['zero_stage']}"


def _what(found: Benchmark) -> Iterator[tuple[str, str]]:
    yield "run", " ".join([found.run, *found.overrides])
    yield "model", f"{found.parameters:,} parameters"
    again = f", {found.recomputation} recomputation" if found.recomputation != "none" else ""
    yield "layout", f"{describe_layout(found.layout)}, {found.precision}{again}"
    yield "batch", f"{found.global_batch_size} x {found.sequence_length} tokens, micro-batch {found.micro_batch_size}"


def _speed(found: Benchmark) -> Iterator[tuple[str, str]]:
    turns, step, rates = found.turns, found.step_seconds, found.tflops
    yield "ours", f"the trainer's step with every callback of a launch: {_rate(found.tokens_per_second)}"
    length = f"median of {turns.alternations} turns of {counted(turns.steps, 'step')} after {turns.warmup} of warm-up"
    yield "step", f"{step.median:.4g} s (quartiles {step.low:.4g} to {step.high:.4g}; {length})"
    mfu = f"; MFU {found.mfu:.1%} of {found.peak_tflops:g}, exact" if found.mfu is not None else "; MFU n/a"
    each = f"{rates.palm:.4g} PaLM, {rates.bigscience:.4g} BigScience, {rates.causal:.4g} exact"
    yield "TFLOP/s each", f"{each}{mfu}"
    yield "loss", f"{found.first_loss:.6f} at first, {found.final_loss:.6f} at last"
    measured = f"{readable(found.memory)} at most" if found.memory is not None else "n/a"
    yield "memory", f"{measured}; estimated {readable(found.estimated_memory)}"
    if found.breakdown:
        yield "of a step", describe_breakdown(found.breakdown)
    if found.roof:
        share = f"{rates.computed / found.roof['tflops']:.0%} of a product's {found.roof['tflops']:.3g} TFLOP/s"
        yield "roof", f"{share}; a copy has {found.roof['bytes_per_second'] / 1e9:.3g} GB/s (both measured here)"


def _beside(found: Benchmark, peer: Peer) -> Iterator[tuple[str, str]]:
    memory = f", {readable(peer.memory)} at most" if peer.memory is not None else ""
    yield "peer", f"{_PEERS[peer.name]}: {_rate(peer.tokens_per_second)}{memory}"
    ratio = peer.ratio
    yield "ours / peer", f"{ratio.median:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    if peer.share_ratio != 1:
        yield (
            "shares of text",
            f"ours / peer {peer.share_ratio:.3f}; the ratio is {ratio.median / peer.share_ratio:.3f} of it",
        )
    verdict = "they agree" if found.agrees else "THEY DO NOT AGREE: the ratio compares two different trainings"
    yield (
        "losses",
        f"{verdict} (largest relative difference {peer.loss_difference:.1e} in the first {COMPARED_STEPS} steps); "
        f"the last: ours {found.final_loss:.6f}, peer {peer.final_loss:.6f}",
    )


def _where(found: Benchmark) -> Iterator[tuple[str, str]]:
    yield "hardware", f"{found.hardware}, {found.threads} threads a process, load {found.load:.1f} before"
    yield "versions", ", ".join(f"{package} {version}" for package, version in found.versions.items())
    yield "date", f"{found.date}, commit {found.commit}"


def _rate(found: Spread) -> str:
    return f"{found.median:,.0f} tokens/s (quartiles {found.low:,.0f} to {found.high:,.0f})"
