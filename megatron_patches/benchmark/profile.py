"""Where the time of a step goes: a trace of a few steps, and seconds by kind."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from megatron_patches.trainer import Trainer

GEMM = ("gemm", "addmm", "aten::mm", "aten::bmm", "cutlass", "nvjet", "xmma", "ampere_", "sm80_", "sm90_", "cijk")
ATTENTION = ("flash", "attention", "fmha", "sdpa", "softmax")
COMMUNICATION = ("nccl", "gloo", "c10d", "all_reduce", "allreduce", "all_gather", "reduce_scatter", "broadcast", "rccl")
DATA, UPDATE = "data wait", "optimizer"
KINDS = ("GEMM", "attention", "communication", "optimizer", "other kernels", "data wait", "host gaps")


def profile_steps(trainer: Trainer, steps: int, trace: Path) -> dict[str, float]:
    """Seconds of a step by kind, on this rank; the trace of rank 0 is written for chrome://tracing or Perfetto.

    On a GPU kinds are kernels' times and `host gaps` is when no kernel runs; on a CPU they are operations' own times,
    and gaps what is left of the step: Python and DeepSpeed.
    """
    activities = [ProfilerActivity.CPU]
    on_gpu = trainer.groups.device.type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with _marked(trainer.batches, "at", DATA), _marked(trainer.engine, "step", UPDATE):
        trainer.train_step()  # whatever the marks change is built outside the trace
        if on_gpu:
            torch.cuda.synchronize(trainer.groups.device)
        with profile(activities=activities) as found:
            for _ in range(steps):
                with record_function("step"):
                    trainer.train_step()
            if on_gpu:
                torch.cuda.synchronize(trainer.groups.device)
    if trainer.speaks:
        trace.parent.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(trace))
    events = found.events()
    return of_kernels(events, steps) if on_gpu else of_operations(events, steps)


class _marked:
    """Within it, calls of a method appear in the trace by a name."""

    def __init__(self, owner: Any, method: str, name: str) -> None:
        self._owner, self._method, self._name = owner, method, name

    def __enter__(self) -> None:
        function: Callable[..., Any] = getattr(self._owner, self._method)

        def marked(*inputs: Any, **named: Any) -> Any:
            with record_function(self._name):
                return function(*inputs, **named)

        setattr(self._owner, self._method, marked)

    def __exit__(self, *_: object) -> None:
        delattr(self._owner, self._method)


def of_operations(events: Iterable[Any], steps: int) -> dict[str, float]:
    """Seconds of a step on a CPU: each operation's own time, those within `optimizer` and `data wait` apart."""
    events = list(events)
    spans = {name: [_span(each) for each in events if each.name == name] for name in (DATA, UPDATE)}
    whole = sum(end - start for start, end in (_span(each) for each in events if each.name == "step"))
    found = dict.fromkeys(KINDS, 0.0)
    for name, where in spans.items():
        found[name] = sum(end - start for start, end in where)
    for each in events:
        if not each.name.startswith(("aten::", "c10d::", "gloo:", "nccl:")):
            continue
        start, _ = _span(each)
        if not any(begin <= start <= end for where in spans.values() for begin, end in where):
            found[kind_of(each.name)] += each.self_cpu_time_total
    found["host gaps"] = max(0.0, whole - sum(found.values()))
    return {kind: micros / 1e6 / steps for kind, micros in found.items()}


def of_kernels(events: Iterable[Any], steps: int) -> dict[str, float]:
    """Seconds of a step on a GPU; kernels that overlap count where they are, so the sum may exceed the step."""
    events = list(events)
    kernels = [each for each in events if _on_gpu(each) and each.name not in (DATA, UPDATE, "step")]
    found = dict.fromkeys(KINDS, 0.0)
    for each in kernels:
        start, end = _span(each)
        kind = "optimizer" if "adam" in each.name.lower() or "multi_tensor" in each.name else kind_of(each.name)
        found[kind] += end - start
    found[DATA] = sum(end - start for start, end in (_span(each) for each in events if each.name == DATA))
    whole = sum(end - start for start, end in (_span(each) for each in events if each.name == "step"))
    found["host gaps"] = max(0.0, whole - _covered([_span(each) for each in kernels]))
    return {kind: micros / 1e6 / steps for kind, micros in found.items()}


def kind_of(name: str) -> str:
    """By the names that libraries give kernels and operations; attention first, whose kernels are products too."""
    lower = name.lower()
    for kind, words in (("communication", COMMUNICATION), ("attention", ATTENTION), ("GEMM", GEMM)):
        if any(word in lower for word in words):
            return kind
    return "other kernels"


def _on_gpu(event: Any) -> bool:
    return event.device_type != DeviceType.CPU


def _span(event: Any) -> tuple[float, float]:
    return event.time_range.start, event.time_range.end


def _covered(spans: list[tuple[float, float]]) -> float:
    """Microseconds in which at least one of them runs."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
