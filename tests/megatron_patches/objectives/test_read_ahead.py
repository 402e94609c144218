"""Steps are read ahead in threads: in what order they are prepared, how far, and what becomes of errors and of ends."""

import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_tools.loader_config import LoaderConfig
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blended import Located
from data_tools.samples.skipping import SkippedSamples
from data_tools.samples.source import Sample
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives import read_ahead
from megatron_patches.objectives.batches import TrainingBatches
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.objective_config import PrefixLMConfig
from megatron_patches.objectives.read_ahead import NAME, ReadAhead
from tests.megatron_patches.objectives.test_batches import ALONE
from tests.ranks import run_on_ranks

OBJECTIVE = build_objective(PrefixLMConfig(name="prefix_lm"), seed=3, end_of_document=None)


class DealtOut:
    """Samples that can be read once they were dealt out: each is its place, eight times.

    Args:
        pause: called before a step is read, with its first place.
    """

    def __init__(self, pause: Callable[[int], None] = lambda place: None) -> None:
        self.prepared: list[list[int]] = []
        self.read: list[int] = []
        self.threads: set[str] = set()
        self.rests = 0
        self.pause = pause

    def prepare(self, places: NDArray[np.int64]) -> "OneStep":
        self.prepared.append(places.tolist())
        self.threads.add(threading.current_thread().name)
        return OneStep(self, set(places.tolist()))

    def rest(self) -> None:
        self.rests += 1


class OneStep:
    """What was dealt out for a step."""

    def __init__(self, samples: DealtOut, places: set[int]) -> None:
        self._samples, self._places = samples, places

    def locate(self, places: NDArray[np.int64]) -> Located:
        return Located(np.zeros_like(places), places)

    def read(self, located: Located) -> list[Sample]:
        numbers = located.number.tolist()
        assert set(numbers) <= self._places, "it was prepared for another step"
        self._samples.pause(min(self._places))
        self._samples.read.append(min(self._places))
        return [{"tokens": np.full(8, number % 100, dtype=np.int64)} for number in numbers]

    def hashes(
        self,
        places: NDArray[np.int64],
        located: Located,
        samples: Sequence[Sample],
    ) -> NDArray[np.uint64]:
        return places.astype(np.uint64)


@contextmanager
def reading(
    samples: DealtOut, sampler: BatchSampler | None = None, end: int | None = None, **loader: Any
) -> Iterator[TrainingBatches]:
    """Batches of 4 samples, two micro-batches, on one rank."""
    sampler = sampler or BatchSampler(lambda _: 4, 2, 0, 1)
    batches = TrainingBatches(samples, sampler, OBJECTIVE, 100, ALONE, LoaderConfig(**loader), end)
    with closing(batches):
        yield batches


def wait_until(happened: Callable[[], bool]) -> None:
    """For what a thread does next."""
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def running() -> list[str]:
    """Names of the reading threads that there are."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]


def as_bytes(batches: list[MicroBatch]) -> list[bytes]:
    """All that a step's batches hold."""
    tensors = [tensor for each in batches for tensor in (*each.inputs.values(), each.labels, each.weights)]
    return [tensor.contiguous().view(torch.uint8).numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (1, 5), (3, 1), (4, 4)])
@pytest.mark.parametrize("persistent", [True, False])
def test_no_setting_changes_a_bit(workers: int, prefetch: int, persistent: bool) -> None:
    """Steps of batches that grow, with samples left out and a validation after every third step."""

    def size(consumed: int) -> int:
        return 2 if consumed < 8 else 4 if consumed < 24 else 8

    def sampler() -> BatchSampler:
        return BatchSampler(size, 2, 0, 1, SkippedSamples([[3, 10], [17, 18]]))

    steps = [0, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40]
    found = []
    shuffled = random.Random(workers)
    for samples, loader in (
        (DealtOut(), {}),
        (
            DealtOut(lambda _: time.sleep(shuffled.random() / 1000)),
            {"workers": workers, "prefetch": prefetch},
        ),
    ):
        with reading(samples, sampler(), 48, **loader) as batches:
            found.append([])
            for number, step in enumerate(steps):
                found[-1].append((as_bytes(batches.at(step)), batches.delivered))
                if loader and not persistent and number % 3 == 2:
                    batches.rest()
                    assert running() == []
        assert max(max(places) for places in samples.prepared) == 48 + 7, "nothing after the end is read"
    assert found[0] == found[1]


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_so_many_steps_are_read_ahead(prefetch: int) -> None:
    samples = DealtOut()
    with reading(samples, prefetch=prefetch) as batches:
        batches.at(0)
        wait_until(lambda: len(samples.read) == prefetch + 1)
        time.sleep(0.01)
        assert samples.read == list(range(0, 4 * (prefetch + 1), 4))
        batches.at(4)
        wait_until(lambda: len(samples.read) == prefetch + 2)


def test_workers_read_at_a_time_and_one_thread_prepares() -> None:
    """Three reads wait for each other: with fewer workers none would end."""
    together = threading.Barrier(3, timeout=5)
    samples = DealtOut(lambda _: (together.wait(), None)[1])
    with reading(samples, workers=3, prefetch=5, end=24) as batches:
        for step in range(0, 24, 4):
            batches.at(step)
        assert sorted(running()) == [NAME, f"{NAME}-0", f"{NAME}-1", f"{NAME}-2"]
    assert samples.threads == {NAME}
    assert samples.prepared == [list(range(step, step + 4)) for step in range(0, 24, 4)]


@pytest.mark.parametrize("workers", [1, 3])
def test_ranks_that_ask_for_the_same_steps_prepare_the_same(workers: int) -> None:
    """However fast each reads: also what was dropped is prepared, so that ranks that talk meanwhile stay together."""
    asked = [0, 4, 8, 40, 44, 4, 8, 12, 100]
    prepared = []
    for seed in range(4):
        pauses = random.Random(seed)
        samples = DealtOut(lambda _, pauses=pauses: time.sleep(pauses.random() / 300))
        with reading(samples, workers=workers, prefetch=2, end=108) as batches:
            for step in asked:
                assert batches.at(step)[0].labels[0, 0] == step % 100
            batches.rest()
        assert samples.rests == 1
        prepared.append([places[0] for places in samples.prepared])
    starts = [0, 4, 8, 12, 16, 40, 44, 48, 52, 4, 8, 12, 16, 20, 100, 104]
    assert prepared == [starts] * 4


def talk_while_preparing(asked: list[int | None]) -> list[int]:
    """First label of each step that is asked for; None is a rest.

    Ranks agree on each step as it is prepared, and rank 1 reads slowly.
    """
    import torch.distributed as dist

    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    groups = start_process_groups(Layout(1, 1, 2), torch.float32)
    own_group = dist.new_group(backend="gloo")

    class Agreed(DealtOut):
        def prepare(self, places: NDArray[np.int64]) -> OneStep:
            sums = torch.from_numpy(places.copy())
            dist.all_reduce(sums, group=own_group)
            assert sums.tolist() == (2 * places).tolist(), "the ranks prepare different steps"
            return super().prepare(places)

    pauses = random.Random(groups.rank)
    samples = Agreed(lambda _: time.sleep(groups.rank * pauses.random() / 100))
    sampler = BatchSampler(lambda _: 4, 2, groups.coordinates.data, 2)
    batches = TrainingBatches(samples, sampler, OBJECTIVE, 100, groups, LoaderConfig(workers=2, prefetch=3), 400)
    found = []
    with closing(batches):
        for step in asked:
            if step is None:
                batches.rest()
            else:
                found.append(int(batches.at(step)[0].labels[0, 0]))
        batches.rest()
    dist.barrier(group=groups.control_group)
    return found


def test_ranks_may_talk_while_a_step_is_prepared() -> None:
    """Beside the messages of the training thread; over resumes, validations and a stop with steps read ahead."""
    asked = [0, 4, 8, None, 12, 16, 40, 44, None, 8, 12, 20, 24]
    steps = [step for step in asked if step is not None]
    assert run_on_ranks(talk_while_preparing, 2, asked) == [steps, [step + 2 for step in steps]]


def test_what_was_dropped_is_not_read() -> None:
    reads_four = threading.Event()

    def pause(place: int) -> None:
        if place == 4:  # until 40 was asked for: then 8 and 12, which are next, are dropped
            reads_four.set()
            wait_until(lambda: [40, 41, 42, 43] in samples.prepared)

    samples = DealtOut(pause)
    with reading(samples, prefetch=3) as batches:
        batches.at(0)
        assert reads_four.wait(5)
        batches.at(40)
    assert samples.read[:3] == [0, 4, 40]


def test_an_error_of_reading_is_raised_where_the_step_is_asked_for() -> None:
    class Broken(Exception):
        pass

    def fail_once(place: int) -> None:
        if place == 8 and 8 not in failed:
            failed.append(place)
            raise Broken("the file system is gone")

    failed: list[int] = []
    samples = DealtOut(fail_once)
    with reading(samples, workers=2, prefetch=4) as batches:
        batches.at(0)
        batches.at(4)
        with pytest.raises(Broken, match="the file system is gone"):
            batches.at(8)
        assert batches.at(8)[0].labels[0, 0] == 8, "asked for again it is read again"


def test_after_an_error_of_preparing_nothing_is_prepared() -> None:
    """Another rank would take the next step's part for the one that failed."""

    class Failing(DealtOut):
        def prepare(self, places: NDArray[np.int64]) -> OneStep:
            step = super().prepare(places)
            if places[0] == 8:
                raise ConnectionError("rank 1 closed the connection")
            return step

    samples = Failing()
    with reading(samples, workers=2, prefetch=4) as batches:
        batches.at(0)
        batches.at(4)
        for step in (8, 12, 8):
            with pytest.raises(ConnectionError, match="rank 1 closed"):
                batches.at(step)
    assert [places[0] for places in samples.prepared] == [0, 4, 8]


def test_closing_while_it_reads_waits_for_nothing_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_PATIENCE", 0.05)
    hanging, begun = threading.Event(), []

    def hang(place: int) -> None:
        begun.append(place)
        if place:
            hanging.wait(5)

    samples = DealtOut(hang)
    with reading(samples, workers=2, prefetch=6) as batches:
        batches.at(0)
        wait_until(lambda: len(samples.prepared) == 7 and sorted(begun) == [0, 4, 8])
        left = [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]
        started = time.monotonic()
        batches.close()
        assert time.monotonic() - started < 1
    hanging.set()  # it comes back: what was begun ends, and nothing follows
    for thread in left:
        thread.join(5)
    assert sorted(samples.read) == [0, 4, 8] and len(samples.prepared) == 7 and running() == []
    with pytest.raises(AssertionError, match="closed"):
        batches.at(4)


@pytest.mark.slow
def test_a_process_ends_while_its_reader_hangs() -> None:
    program = (
        "import time\n"
        "from megatron_patches.objectives.read_ahead import ReadAhead\n"
        "ReadAhead(lambda step: step, lambda step, _: time.sleep(600), 2).order(1)\n"
        "raise SystemExit('the rank failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "the rank failed\n")


def test_idle_threads_hold_nothing_of_what_they_read() -> None:
    class Content:
        pass

    reader: ReadAhead[Content, Content] = ReadAhead(lambda _: Content(), lambda _, content: content, 2)
    with closing(reader):
        held = [weakref.ref(reader.order(step).result()) for step in range(4)]
        wait_until(lambda: [each() for each in held] == [None] * 4)


def test_a_wait_is_measured_and_reading_ahead_makes_it_short() -> None:
    there = threading.Event()
    samples = DealtOut(lambda _: there.wait(5) and None)
    with reading(samples, prefetch=1) as batches:
        began = time.perf_counter()
        threading.Timer(0.2, there.set).start()
        batches.at(0)
        assert 0.05 < batches.waited_seconds <= time.perf_counter() - began
        wait_until(lambda: len(samples.read) == 2)
        batches.at(4)
        assert batches.waited_seconds < 0.05


def test_what_a_gpu_computes_meanwhile_is_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is busy for the first 20 of 60 ms."""
    began = time.monotonic()
    monkeypatch.setattr(
        "megatron_patches.objectives.batches._computes",
        lambda device: time.monotonic() < began + 0.02,
    )
    with reading(DealtOut(lambda _: time.sleep(0.06))) as batches:
        batches.at(0)
        assert batches.waited_seconds < time.monotonic() - began - 0.015
