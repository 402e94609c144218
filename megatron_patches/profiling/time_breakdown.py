"""Seconds of profiled steps by kind of work. Each instant counts once, so the kinds add up to the steps. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GEMM = ("gemm", "cijk", "addmm", "matmul", "::mm", "bmm", "cutlass", "nvjet", "xmma", "ampere_", "sm80_", "sm90_")
ATTENTION = ("flash", "attention", "fmha", "sdpa", "softmax")
COMMUNICATION = ("nccl", "gloo", "c10d", "all_reduce", "allreduce", "all_gather", "reduce_scatter", "broadcast", "rccl")
OPERATIONS = ("aten::", "c10d::", "## Call CompiledFxGraph")
"""what computes on a CPU; other events are Python's, and functions of autograd around operations"""

STEP, DATA, UPDATE = "step", "data wait", "optimizer"
"""names by which the profile marks steps, the wait for a batch and the update"""
KINDS = ("GEMM", "attention", "communication", "optimizer", "other kernels", "data wait", "host gaps")

Span = tuple[float, float]


def seconds_by_kind(events: Iterable[Any], steps: int, on_gpu: bool) -> dict[str, float]:
    """Seconds of a step by kind, of events as `torch.profiler` has them."""
    events = list(events)
    marks = [each for each in events if each.name == STEP and not _on_gpu(each)]
    ranked = _kernels(events) if on_gpu else _operations(events, marks[0].thread)
    micros = divide((min(each.time_range.start for each in marks), max(each.time_range.end for each in marks)), ranked)
    return {kind: each / 1e6 / steps for kind, each in micros.items()}


def divide(whole: Span, ranked: Sequence[tuple[str, list[Span]]]) -> dict[str, float]:
    """How much of a stretch of time each kind has: of spans that overlap the first in rank counts, the rest is gaps."""
    found = dict.fromkeys(KINDS, 0.0)
    taken: list[Span] = []
    for kind, spans in ranked:
        inside = ((max(start, whole[0]), min(end, whole[1])) for start, end in spans)
        merged = _merged([*taken, *(span for span in inside if span[0] < span[1])])
        found[kind] += _length(merged) - _length(taken)
        taken = merged
    found["host gaps"] += whole[1] - whole[0] - _length(taken)
    return found


def _operations(events: list[Any], thread: int) -> list[tuple[str, list[Span]]]:
    """On a CPU: operations of the thread that trains, then messages that it waits for, then the rest of what is marked.

    An operation within another has the outer one's kind where that says more: a product's copies are the product's.
    """
    here = [each for each in events if each.thread == thread and not each.is_async]
    update, data = ([_span(each) for each in here if each.name == name] for name in (UPDATE, DATA))
    found: dict[str, list[Span]] = {kind: [] for kind in KINDS}
    for each in here:
        if each.name.startswith(OPERATIONS):
            kind = kind_of(each.name)
            if kind != "communication":
                kind = UPDATE if _within(each, update) else DATA if _within(each, data) else kind
            found[kind].append(_span(each))
    rank = ("communication", UPDATE, DATA, "attention", "GEMM", "other kernels")
    messages = ("communication", _messages(events))
    return [*((kind, found[kind]) for kind in rank), messages, (UPDATE, update), (DATA, data)]


def _messages(events: list[Any]) -> list[Span]:
    """When gloo has a message on its way: from the call, which returns at once, to the end on gloo's own thread."""
    calls = sorted((each.time_range.start for each in events if each.name.startswith("c10d::")), reverse=True)
    spans = []
    for start, end in sorted(_span(each) for each in events if each.name.startswith("gloo:")):
        spans.append((calls.pop() if calls and calls[-1] <= start else start, end))
    return spans


def _kernels(events: list[Any]) -> list[tuple[str, list[Span]]]:
    """On a GPU: what computes, then messages that no computation hides, then the host's wait for a batch."""
    there = [each for each in events if _on_gpu(each)]
    update = [_span(each) for each in there if each.name == UPDATE]
    found: dict[str, list[Span]] = {kind: [] for kind in KINDS}
    for each in there:
        if each.name in (STEP, DATA, UPDATE):
            continue
        kind = kind_of(each.name)
        in_update = _within(each, update) or "adam" in each.name.lower() or "multi_tensor" in each.name
        found[UPDATE if in_update and kind != "communication" else kind].append(_span(each))
    rank = (UPDATE, "attention", "GEMM", "other kernels", "communication")
    waits = [_span(each) for each in events if each.name == DATA and not _on_gpu(each)]
    return [*((kind, found[kind]) for kind in rank), (DATA, waits)]


def kind_of(name: str) -> str:
    """By the names that libraries give kernels and operations; attention before GEMM, its kernels are products too."""
    lower = name.lower()
    for kind, parts in (("communication", COMMUNICATION), ("attention", ATTENTION), ("GEMM", GEMM)):
        if any(part in lower for part in parts):
            return kind
    return "other kernels"


def describe_breakdown(breakdown: Mapping[str, float]) -> str:
    """Milliseconds and shares of a step's time."""
    whole = sum(breakdown.values())
    return ", ".join(f"{kind} {each * 1e3:.1f} ms ({each / whole:.1%})" for kind, each in breakdown.items())


def _on_gpu(event: Any) -> bool:
    return bool(event.device_type.name != "CPU")


def _span(event: Any) -> Span:
    return event.time_range.start, event.time_range.end


def _within(event: Any, spans: list[Span]) -> bool:
    return any(start <= event.time_range.start <= end for start, end in spans)


def _merged(spans: list[Span]) -> list[Span]:
    """The same time as spans that do not overlap."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _length(spans: list[Span]) -> float:
    return sum(end - start for start, end in spans)
