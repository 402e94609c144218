"""The training loop: read, forward and backward, step, callbacks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import torch

from data_tools.samples.delivered import Delivered, hash_text
from megatron_patches.callbacks.callback import Callback, Record
from megatron_patches.engine.interface import Engine
from megatron_patches.objectives.batches import TrainingBatches
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.parallel.votes import StepVotes
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import Outcome, Progress, StepRecord
from megatron_patches.run.run_directory import Launch
from megatron_patches.training.device_numbers import DeviceNumbers
from megatron_patches.training.memory import memory_in_use


@dataclass(frozen=True)
class _StepOnDevice:
    """A step whose numbers the host has not read yet."""

    step: int
    samples: int
    tokens: int
    batch_size: int
    numbers: DeviceNumbers
    """loss, gradient norm, and in fp16 the loss scale"""
    learning_rate: float
    delivered: str
    data_wait_seconds: float
    padding: float


class Trainer:
    """One launch of one run on this rank; what callbacks may use of it is `callbacks.callback.TrainingLoop`."""

    def __init__(
        self,
        config: RunConfig,
        launch: Launch,
        groups: ProcessGroups,
        engine: Engine,
        batches: TrainingBatches,
        randomness: StepRandomness,
        votes: StepVotes,
        callbacks: Sequence[Callback],
    ) -> None:
        self.config = config
        self.launch = launch
        self.groups = groups
        self.engine = engine
        self.batches = batches
        self.randomness = randomness
        self.votes = votes
        self.callbacks = callbacks
        self.progress = Progress()
        self.delivered: Delivered | None = Delivered()
        self.stop_reason: str | None = None
        self._unread: _StepOnDevice | None = None
        self._read_at = 0.0

    @property
    def is_first_rank(self) -> bool:
        """Whether this rank writes logs and events for all."""
        return self.groups.rank == 0

    @cached_property
    def _flops(self) -> float:
        """Of a token, without what recomputation repeats, attention counted whole."""
        return self.config.architecture.flops(self.config.model, self.config.lengths).computed

    def fit(self) -> Outcome:
        """Train to the last step, or to the step at which all ranks agree to stop."""
        for callback in self.callbacks:
            callback.on_start(self)
        self._read_at = perf_counter()
        while self.progress.step < self.config.timetable.steps and self.stop_reason is None:
            self.train_step()
        self.batches.rest()
        self.votes.collect()
        self.read_numbers()
        outcome = Outcome.FINISHED if self.progress.step >= self.config.timetable.steps else Outcome.STOPPED
        for callback in self.callbacks:
            callback.on_end(self, outcome)
        return outcome

    def train_step(self) -> None:
        """One optimizer step. The host does not wait for the device: it reads the previous step's numbers."""
        progress, config = self.progress, self.config
        self.randomness.start_step(progress.step + 1)
        micro_batches = self.batches.at(progress.samples)
        loss = self.engine.forward_backward(micro_batches)
        norm = self.engine.grad_norm()
        scale = self.engine.counters().get("scale")
        numbers = DeviceNumbers(torch.stack([loss, norm] if scale is None else [loss, norm, scale]))
        rate = config.learning_rate(progress.step + 1)
        self.engine.step(rate, norm)
        self.read_numbers()
        batch_size = config.timetable.batch_size(progress.step + 1)
        progress.step += 1
        progress.samples += batch_size
        progress.tokens += batch_size * config.lengths.counted
        delivered = self.batches.delivered
        if self.delivered is not None:
            self.delivered = self.delivered.after(delivered, batch_size)
        self._unread = _StepOnDevice(
            progress.step, progress.samples, progress.tokens, batch_size, numbers, rate, hash_text(delivered),
            self.batches.waited_seconds, self.batches.padding,
        )  # fmt: skip
        if self.groups.device.type == "cpu":  # nothing runs ahead of the host here: show the step when it is done
            self.read_numbers()
        self.votes.collect()
        for callback in self.callbacks:
            callback.after_update(self)
        self.votes.send()

    def read_numbers(self) -> None:
        """Wait for the step whose numbers are still on the device, if any, and emit them."""
        if self._unread is None:
            return
        done, self._unread = self._unread, None
        loss, norm, *scale = done.numbers.read()
        now = perf_counter()
        seconds, self._read_at = now - self._read_at, now
        rate = done.batch_size * self.config.lengths.counted / seconds
        self.emit(StepRecord(
            step=done.step, samples=done.samples, tokens=done.tokens, batch_size=done.batch_size,
            loss=loss, learning_rate=done.learning_rate, grad_norm=norm, seconds=seconds, tokens_per_second=rate,
            tflops_per_process=rate * self._flops / self.groups.layout.world_size / 1e12,
            loss_scale=scale[0] if scale else None, memory_bytes=memory_in_use(self.groups.device),
            delivered=done.delivered, data_wait_seconds=done.data_wait_seconds,
            padding=done.padding, text_tokens_per_second=rate * (1 - done.padding),
        ))  # fmt: skip

    @contextmanager
    def outside_steps(self) -> Iterator[None]:
        """Time spent within it (validation, saving) is not counted as a step's."""
        started = perf_counter()
        yield
        self._read_at += perf_counter() - started

    def emit(self, record: Record) -> None:
        """Tell every callback."""
        for callback in self.callbacks:
            callback.on_record(self, record)

    def request_stop(self, reason: str) -> None:
        """Stop after this step; every rank must ask in the same step."""
        self.stop_reason = reason
