"""What a run has consumed after each of its steps: pure arithmetic, also while the global batch grows. Torch-free."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from megatron_patches.optim.schedule_config import Unit
from megatron_patches.run.progress import Progress
from megatron_patches.training.training_config import BatchRampConfig, TrainingConfig


@dataclass(frozen=True)
class BatchStretch:
    """Steps that follow each other with one global batch size."""

    steps_before: int
    samples_before: int
    batch_size: int


class Timetable:
    """Global batches, samples and tokens of every step, and the number of steps of the whole run."""

    def __init__(self, training: TrainingConfig, tokens_per_sample: int) -> None:
        self._tokens_per_sample = tokens_per_sample
        self.stretches = list(_stretches(training))
        self.ends = [self._steps_within(length, training.length_unit) for length in training.lengths]
        """steps after which the run ends: at first, and with each of its extensions"""

    @property
    def steps(self) -> int:
        """Steps of the whole run, extensions counted."""
        return self.ends[-1]

    @property
    def end(self) -> Progress:
        """What the whole run consumes."""
        return self.after(self.steps)

    def after(self, step: int) -> Progress:
        """What is consumed after so many steps."""
        stretch = self.stretches[bisect_right(self.stretches, step, key=lambda each: each.steps_before) - 1]
        samples = stretch.samples_before + (step - stretch.steps_before) * stretch.batch_size
        return Progress(step, samples, samples * self._tokens_per_sample)

    def batch_size(self, step: int) -> int:
        """Samples of update number `step` (1 is the first)."""
        return self.after(step).samples - self.after(step - 1).samples

    def batch_size_at(self, consumed_samples: int) -> int:
        """Samples of the update that follows so many consumed samples."""
        return self.stretches[
            bisect_right(self.stretches, consumed_samples, key=lambda each: each.samples_before) - 1
        ].batch_size

    def position(self, step: int, unit: Unit) -> int:
        """Where update number `step` ends, in a schedule's unit."""
        consumed = self.after(step)
        return {"steps": consumed.step, "samples": consumed.samples, "tokens": consumed.tokens}[unit]

    def _steps_within(self, length: int, unit: Unit) -> int:
        if unit == "steps":
            return length
        samples = length if unit == "samples" else length // self._tokens_per_sample
        stretch = self.stretches[bisect_right(self.stretches, samples, key=lambda each: each.samples_before) - 1]
        return stretch.steps_before + (samples - stretch.samples_before) // stretch.batch_size


def _stretches(training: TrainingConfig) -> Iterator[BatchStretch]:
    """As Megatron ramps up: a size is kept for an equal number of samples, and a step is never cut in two."""
    steps = samples = 0
    if training.batch_ramp is not None:
        for size, until in _ramp(training.batch_ramp, training.global_batch_size):
            needed = max(0, -(-(until - samples) // size))
            if needed:
                yield BatchStretch(steps, samples, size)
            steps, samples = steps + needed, samples + needed * size
    yield BatchStretch(steps, samples, training.global_batch_size)


def _ramp(ramp: BatchRampConfig, last_size: int) -> Iterator[tuple[int, int]]:
    """Each size before the last, and the count of samples from which the next one is used (rounded up)."""
    sizes = range(ramp.start, last_size, ramp.increment)
    for number, size in enumerate(sizes, start=1):
        yield size, -(-ramp.samples * number // len(sizes))
