"""What a CPU can do at most, measured: there is no data sheet that fits a share of a virtual machine."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

WIDTH = 2048
"""of the square matrices: far beyond the caches of a core, a few tenths of a second"""
COPIED = 1 << 28
"""bytes: beyond any cache"""
TRIES = 7


@dataclass(frozen=True)
class Roof:
    """The best of some tries, in one process with its threads, all processes at once."""

    tflops: float
    """of a product of two square matrices in the run's precision"""
    bytes_per_second: float
    """read and written, of a copy"""


def measure_roof(dtype: torch.dtype) -> Roof:
    """Measure this process's."""
    left, right = (torch.randn(WIDTH, WIDTH).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    source = torch.ones(COPIED, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return Roof(
        2 * WIDTH**3 / _fastest(lambda: torch.mm(left, right, out=product)) / 1e12,
        2 * COPIED / _fastest(lambda: target.copy_(source)),
    )


def _fastest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TRIES):
        started = perf_counter()
        work()
        seconds.append(perf_counter() - started)
    return min(seconds)
