"""A profile of a few steps: a trace for chrome://tracing or Perfetto, and seconds of a step by kind."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from megatron_patches.atomic_files import fsync_folder, temporary_path
from megatron_patches.errors import TrainingFailed
from megatron_patches.profiling.time_breakdown import DATA, STEP, UPDATE, seconds_by_kind

_GLOO_SECONDS = 0.5


class StepProfile:
    """Between two steps it is started, and after each it hears of its end; one that is not running costs nothing."""

    def __init__(self, device: torch.device, batches: object, engine: object) -> None:
        """The trace shows the waits for `batches.at` and the updates by `engine.step` under names of their own."""
        self._device = device
        self._on_gpu = self._device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        self._profile = profile(activities=activities)
        self._open = ExitStack()
        self._marks = [_Mark(batches, "at", DATA), _Mark(engine, "step", UPDATE)]
        self._step = record_function(STEP)
        self._steps = 0

    def start(self) -> None:
        """Trace from now on; what was begun before is waited for."""
        self._wait()
        for mark in self._marks:
            self._open.enter_context(mark)
        self._open.enter_context(self._profile)
        self._step.__enter__()

    def end_step(self, last: bool) -> None:
        """A step is over; the last one includes the wait for what the GPU has not done yet, and ends the trace."""
        if last:
            self._wait()
        self._step.__exit__(None, None, None)
        self._steps += 1
        if last:
            self.stop()
        else:
            self._step = record_function(STEP)
            self._step.__enter__()

    def stop(self) -> None:
        """Trace no more.

        gloo's threads close their records a moment after they have let this one go on, and a profiler that is
        switched off meanwhile takes the process with it: a segmentation fault in `_disable_profiler` of torch 2.13, in
        2 of 8 runs of a test on two ranks, in none of 16 with the pause.
        """
        if not self._on_gpu:
            time.sleep(_GLOO_SECONDS)
        self._open.close()

    def seconds_by_kind(self) -> dict[str, float]:
        """Seconds of a step by kind, on this rank; together the mean time of the profiled steps."""
        return seconds_by_kind(self._profile.events() or [], self._steps, self._on_gpu)

    def write(self, path: Path) -> None:
        """Write the trace; the name appears when the file is whole.

        Raises:
            TrainingFailed: it could not be written.
        """
        temporary = temporary_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._profile.export_chrome_trace(str(temporary))
            with temporary.open("rb+") as file:  # the library says nothing of a disk that filled up
                file.seek(-min(8, file.seek(0, os.SEEK_END)), os.SEEK_END)
                if not file.read().rstrip().endswith(b"}"):
                    raise OSError("the file is cut off")
                os.fsync(file.fileno())
            temporary.replace(path)
            fsync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise TrainingFailed(
                f"{path}: the trace cannot be written ({error}); make room, or profile fewer steps"
            ) from error

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)


class _Mark:
    """Within it, calls of an object's method appear in the trace by a name."""

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
