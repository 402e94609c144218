"""Several tasks compared at once: each more is a chance more to find a difference where there is none."""

import numpy as np
from numpy.typing import ArrayLike

from megatron_patches.evaluation.statistics.distributions import Floats


def holm(p: ArrayLike) -> Floats:
    """p values adjusted as Holm did (1979, Scandinavian Journal of Statistics 6:65-70), in their order.

    Where those below alpha are called differences, the chance of one false call or more is at most alpha, however the
    tasks depend on each other. The smallest is multiplied by their number, the next by one less, and so on.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return adjusted
