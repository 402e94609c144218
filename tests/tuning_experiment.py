"""How well layouts are ranked on this machine: `python -m tests.tuning_experiment [--layouts N] [--rounds N]`.

Layouts from all over the ranking are measured on two ranks, in fresh processes that are forked from one with torch and
DeepSpeed imported, in several rounds so that a slow minute does not hit one layout alone. Each is then predicted with
speeds calibrated without it. Asked for: Kendall's tau of at least 0.7, a first choice within 5 % of the fastest.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from megatron_patches.run.config import RunConfig
from megatron_patches.tuning.calibration import USUAL_OF_A_CPU, Measured, trust
from megatron_patches.tuning.ranking import Ranked, apart, rank
from tests.ranks import run_on_ranks
from tests.small_training import make_small_data, overrides

PROCESSES, WARMUP, STEPS = 2, 3, 8
MODEL = overrides(
    model__layers=4, model__hidden_size=192, model__ffn_size=768, data__sequence_length=64, data__max_epochs=100,
    training__global_batch_size=16, training__micro_batch_size=1, training__steps=16,
)  # fmt: skip


def step_seconds(config: RunConfig) -> float:
    """Median seconds of a step on this rank."""
    import torch.distributed as dist

    from tests.small_engine import SmallEngine

    small = SmallEngine(config)
    small.train(WARMUP)
    taken = []
    for _ in range(STEPS):
        dist.barrier()
        started = perf_counter()
        small.train(1)
        dist.barrier()
        taken.append(perf_counter() - started)
    small.batches.close()
    return statistics.median(taken)


def measure(config: RunConfig, chosen: list[Ranked], rounds: int) -> list[Measured]:
    """The least of the rounds' medians: what other programs add is never negative."""
    found = [float("inf")] * len(chosen)
    for _ in range(rounds):
        for place, each in enumerate(chosen):
            seconds = max(run_on_ranks(step_seconds, PROCESSES, each.candidate.applied_to(config)))
            print(f"{seconds * 1e3:8.1f} ms  {each.candidate.describe()}", file=sys.stderr, flush=True)
            found[place] = min(found[place], seconds)
    return [Measured(each.work, seconds) for each, seconds in zip(chosen, found, strict=True)]


def main(layouts: int, rounds: int) -> bool:
    """Print what was found; whether it is what was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_small_data(Path(folder) / "data").run(Path(folder), MODEL)
        ranked = rank(config, PROCESSES, PROCESSES, None, USUAL_OF_A_CPU, "cpu")
        measured = measure(config, apart(ranked, layouts), rounds)
    for each, found in sorted(zip(apart(ranked, layouts), measured, strict=True), key=lambda pair: pair[1].seconds):
        print(f"{found.seconds * 1e3:8.1f} ms  {each.candidate.describe()}")
    result = trust(measured, USUAL_OF_A_CPU)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; {result}")
    return result.kendall_tau >= 0.7 and result.regret <= 0.05


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.tuning_experiment", description=__doc__)
    parser.add_argument("--layouts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.exit(0 if main(options.layouts, options.rounds) else 1)
