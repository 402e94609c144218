"""Random histories of runs that are killed, resumed and taken back on ever other numbers of ranks:
`python -m tests.torture.orders --rounds 20000`.

Each run is a blend with stages, skipped samples and a growing batch. Whatever happens to it, its steps must be made of
the samples of the uninterrupted run, each once and in order, and its checkpoints must hold the same running hash. What
lies ahead (stages, skipped samples) may become known to it late. Nothing is trained; what decides what is read is real.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, islice
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from data_tools.samples import blended
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blend import whole_weights
from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples
from data_tools.samples.delivered import Delivered
from data_tools.samples.skipping import Range, SkippedSamples
from data_tools.samples.source import Sample

WEIGHTS = [(1,), (1, 1), (3, 1), (5, 90), (1, 1, 1), (60, 30, 10), (1, 2, 3), (1, 2, 3, 4), (97, 1, 1, 1)]
"""few, since each is a pattern of 65,536 places"""
LENGTHS = (1, 4, 16, 60)
BATCHES = (4, 6, 12)


@dataclass
class Told:
    """What histories came to."""

    launches: int = 0
    trained_again: int = 0
    """steps that a kill or a rollback lost"""
    problems: list[str] = field(default_factory=list)


class Numbered:
    """A source whose samples say which they are."""

    def __init__(self, source: int, length: int) -> None:
        self._samples: list[Sample] = [
            {
                "tokens": np.array([source, number, source * number]),
                **({"answers": np.array([0, 1, 1])} if source % 2 else {}),
            }
            for number in range(length)
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        return self._samples[number]


numbered = cache(Numbered)


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    lengths: tuple[int, ...]
    """of its sources"""
    stages: tuple[Stage, ...]
    skipped: tuple[Range, ...]
    batch_size_at: Callable[[int], int]
    batch: int
    """by what all of its batches can be divided"""
    steps: int

    def samples(self, stages: Sequence[Stage]) -> TrainingSamples:
        """Those of a launch that knows of some of the stages."""
        sources = [NamedSource(str(n), numbered(n, length), (f"id{n}",)) for n, length in enumerate(self.lengths)]
        return TrainingSamples(sources, BlendStages(stages, len(sources)), self.seed)

    def consumed(self) -> list[int]:
        """Samples before each step, and at the end."""
        found = [0]
        for _ in range(self.steps):
            found.append(found[-1] + self.batch_size_at(found[-1]))
        return found


def draw_plan(draw: random.Random) -> Plan:
    """A run of a few steps in which as much happens as in a long one."""
    lengths = tuple(draw.choice(LENGTHS) for _ in range(draw.randint(1, 4)))
    batch, grows_at = draw.choice(BATCHES), draw.choice([0, 10, 40, 10**9])
    stages = []
    for first in sorted({0, *(draw.randint(1, 60) for _ in range(draw.randint(0, 2)))}):
        sources = tuple(draw.sample(range(len(lengths)), draw.randint(1, len(lengths))))
        weights = draw.choice([each for each in WEIGHTS if len(each) == len(sources)])
        stages.append(Stage(first, sources, _whole(weights)))
    skipped = []
    for _ in range(draw.randint(0, 3)):
        first = draw.randint(0, 60)
        skipped.append((first, first + draw.randint(1, 20)))
    return Plan(
        draw.randrange(1 << 40), lengths, tuple(stages), tuple(skipped),
        lambda consumed: 2 * batch if consumed >= grows_at else batch, batch, draw.randint(3, 7),
    )  # fmt: skip


_whole = cache(whole_weights)


def one_history(draw: random.Random, told: Told) -> None:
    """A run, uninterrupted and interrupted."""
    plan = draw_plan(draw)
    consumed = plan.consumed()
    whole = SkippedSamples(plan.skipped)
    left_out = {place for first, end in plan.skipped for place in range(first, end)}
    every = (place for place in count() if place not in left_out)
    places = np.array(list(islice(every, consumed[-1])), dtype=np.int64)
    expected = _running(plan.samples(plan.stages), places, consumed)
    course: dict[int, NDArray[np.int64]] = {}
    saves = {0: Delivered()}
    step = 0
    while step < plan.steps:
        told.launches += 1
        end = draw.randint(step + 1, plan.steps)
        reached = whole.reached(consumed[end])
        known = SkippedSamples(each for each in plan.skipped if each[0] < reached or draw.random() < 0.5)
        stages = [each for each in plan.stages if each.first < reached or draw.random() < 0.5]
        read = list(_read_on_ranks(plan, known, consumed[step:end], draw))
        course |= dict(enumerate(read, start=step + 1))
        counts = np.cumsum([0, *map(len, read)]).tolist()
        running = _running(plan.samples(stages), np.concatenate(read), counts, saves[step])
        for number, delivered in enumerate(running[1:], start=step + 1):
            if draw.random() < 0.4 or number == plan.steps:
                saves[number] = delivered
                if delivered != expected[number]:
                    told.problems.append(f"step {number} of {plan}: {delivered} is saved, not {expected[number]}")
        # it was killed, or is taken back: the newest checkpoint, or an older one
        back = sorted(saves)[-1] if draw.random() < 0.7 or end == plan.steps else draw.choice(sorted(saves))
        told.trained_again += end - back
        saves = {number: delivered for number, delivered in saves.items() if number <= back}
        step = back
    if not np.array_equal(np.concatenate([course[number] for number in range(1, plan.steps + 1)]), places):
        told.problems.append(f"{plan}: not the samples of the uninterrupted run")


def _read_on_ranks(
    plan: Plan, skipped: SkippedSamples, consumed: Sequence[int], draw: random.Random
) -> Iterator[NDArray[np.int64]]:
    """The places that all ranks of a launch read in each of its steps, put together as its batch was cut."""
    ranks = draw.choice([each for each in range(1, plan.batch + 1) if plan.batch % each == 0])
    share = plan.batch // ranks
    micro_batch = draw.choice([each for each in range(1, share + 1) if share % each == 0])
    samplers = [BatchSampler(plan.batch_size_at, micro_batch, rank, ranks, skipped) for rank in range(ranks)]
    for before in consumed:
        by_rank = [sampler.micro_batches(before) for sampler in samplers]
        yield np.concatenate([micro for turn in zip(*by_rank, strict=True) for micro in turn])


def _running(
    samples: TrainingSamples, places: NDArray[np.int64], ends: Sequence[int], since: Delivered | None = None
) -> list[Delivered]:
    """The running hash before each step, and at the end; `ends` are places of the list."""
    located = samples.locate(places)
    hashes = samples.hashes(places, located, samples.read(located))
    found = [since or Delivered()]
    for value, first, end in zip(np.add.reduceat(hashes, ends[:-1]).tolist(), ends, ends[1:], strict=False):
        found.append(found[-1].after(value, end - first))
    return found


def torture(rounds: int, seed: int) -> Told:
    """So many histories."""
    told = Told()
    with patch.object(blended, "BlendPattern", cache(blended.BlendPattern)):
        for number in range(rounds):
            one_history(random.Random(seed + number), told)
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.torture.orders")
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = torture(options.rounds, options.seed)
    print(
        f"{options.rounds:,} histories of {result.launches:,} launches, which trained {result.trained_again:,} steps "
        f"again; {len(result.problems)} problems"
    )
    sys.exit("\n".join(result.problems[:10]) or None)
