"""What the settings of `data.loader` do, measured: `python -m tests.loader_experiment`.

One rank reads the batches of a run from four real datasets whose pages are in memory, hashed and masked as in training,
and no model is trained. In turns, the order rotated with each, medians:

- workers: samples a second that a number of threads prepares, and its CPU time for a sample (which other work on the
  machine hardly changes), for each objective; then the same from storage that takes 1 ms for each sample.
- prefetch: the share of their time that steps of 40 ms wait, where a step's samples take 10 ms and every twentieth
  step's 120 ms, by the number of steps that are read ahead.
- persistent: seconds from the end of a validation to the next step's samples, with and without.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.loader_config import LoaderConfig
from data_tools.run_data import RunData
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blended import Located, TrainingSamples
from data_tools.samples.source import Sample
from megatron_patches.objectives.batches import TrainingBatches
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig
from tests.large_blend import LENGTH, lengths, make_datasets, section
from tests.megatron_patches.objectives.test_batches import ALONE

SAMPLES = 32
"""of a step, in micro-batches of 4"""
STEPS = 40
"""of a turn"""
OBJECTIVES: dict[str, Objective] = {
    "causal": build_objective(CausalConfig(name="causal"), 1, None),
    "causal, documents apart": build_objective(CausalConfig(name="causal", reset_attention=True), 1, 0),
    "prefix_lm": build_objective(PrefixLMConfig(name="prefix_lm"), 1, None),
}


class SlowSamples:
    """Samples from storage that takes a while for each step.

    Args:
        seconds: that a step takes more, by its first place.
    """

    def __init__(self, samples: TrainingSamples, seconds: Callable[[int], float]) -> None:
        self._samples, self._seconds = samples, seconds
        self.locate, self.hashes = samples.locate, samples.hashes

    def prepare(self, places: NDArray[np.int64]) -> "SlowSamples":
        seconds = self._seconds(int(places[0]))
        return SlowSamples(self._samples, lambda _: seconds)

    def rest(self) -> None:
        self._samples.rest()

    def read(self, located: Located) -> list[Sample]:
        time.sleep(self._seconds(0))
        return self._samples.read(located)


def batches(samples: Any, objective: Objective, **loader: Any) -> TrainingBatches:
    """Those of one rank."""
    sampler = BatchSampler(lambda _: SAMPLES, 4, 0, 1)
    return TrainingBatches(samples, sampler, objective, 270, ALONE, LoaderConfig(**loader))


def read_steps(samples: Any, objective: Objective, computes: float = 0.0, **loader: Any) -> tuple[float, float, float]:
    """Seconds and CPU seconds of a turn's steps after the first, and the share of them that was waited."""
    with closing(batches(samples, objective, **loader)) as reader:
        reader.at(0)
        started, used, waited = time.perf_counter(), time.process_time(), 0.0
        for step in range(1, STEPS + 1):
            time.sleep(computes)
            reader.at(step * SAMPLES)
            waited += reader.waited_seconds
        seconds = time.perf_counter() - started
        return seconds, time.process_time() - used, waited / seconds


def in_turns(turns: int, measures: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """What each measure finds in each turn; the first turn, which brings files into memory, is left out."""
    found: dict[str, list[Any]] = {name: [] for name in measures}
    for turn in range(turns + 1):
        names = list(measures)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            value = measures[name]()
            if turn:
                found[name].append(value)
    return found


def measure_workers(samples: TrainingSamples, turns: int) -> None:
    """Prints samples a second and CPU time a sample."""
    slow = SlowSamples(samples, lambda _: 0.001 * SAMPLES)
    cases = [(name, samples, objective) for name, objective in OBJECTIVES.items()]
    for name, read, objective in [*cases, ("causal, 1 ms a sample of storage", slow, OBJECTIVES["causal"])]:
        print(f"{name}, {SAMPLES} samples of {LENGTH} tokens a step:")
        measures = {
            f"workers {workers}": lambda read=read, objective=objective, workers=workers: read_steps(
                read, objective, workers=workers, prefetch=2 * workers
            )
            for workers in (1, 2, 4)
        }
        for label, found in in_turns(turns, measures).items():
            rate = median(STEPS * SAMPLES / seconds for seconds, _, _ in found)
            used = median(cpu / STEPS / SAMPLES for _, cpu, _ in found)
            print(f"  {label}: {rate:9,.0f} samples/s, {used * 1e6:6.0f} us of CPU time a sample")


def measure_prefetch(samples: TrainingSamples, turns: int) -> None:
    """Prints the share of time that steps wait."""
    stalling = SlowSamples(samples, lambda place: 0.12 if place // SAMPLES % 20 == 10 else 0.01)
    measures = {
        f"prefetch {prefetch}": lambda prefetch=prefetch: read_steps(
            stalling, OBJECTIVES["causal"], computes=0.04, prefetch=prefetch
        )
        for prefetch in (1, 2, 3, 4, 8)
    }
    print("steps of 40 ms, reading takes 10 ms and every twentieth time 120 ms:")
    for label, found in in_turns(turns, measures).items():
        print(f"  {label}: {median(share for _, _, share in found):6.2%} of the time is waited")


def measure_persistence(samples: TrainingSamples, turns: int) -> None:
    """Prints what the step after a validation waits."""

    def wait(persistent: bool) -> float:
        with closing(batches(samples, OBJECTIVES["causal"])) as reader:
            reader.at(0)
            if not persistent:
                reader.rest()
            time.sleep(0.2)  # a validation
            started = time.perf_counter()
            reader.at(SAMPLES)
            return time.perf_counter() - started

    measures = {f"persistent {str(each).lower()}": lambda each=each: wait(each) for each in (True, False)}
    print("the step after a validation:")
    for label, found in in_turns(turns, measures).items():
        print(f"  {label}: {median(found) * 1e3:.2f} ms until its samples are there")


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.loader_experiment")
    parser.add_argument("--turns", type=int, default=7, help="turns of each setting")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        make_datasets(Path(folder), sources=4, tokens=8_000_000)
        samples = RunData(section(Path(folder), 4, LENGTH), Path(folder), lengths(LENGTH)).training(seed=1)
        measure_workers(samples, options.turns)
        measure_prefetch(samples, options.turns)
        measure_persistence(samples, options.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
