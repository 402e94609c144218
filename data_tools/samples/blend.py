"""(written by another branch)"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PERIOD = 65_536


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    total = sum(weights)
    w = [max(1, int(x / total * PERIOD)) for x in weights]
    w[int(np.argmax(w))] += PERIOD - sum(w)
    return tuple(w)


class BlendPattern:
    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = np.array(weights, dtype=np.int64)
        k = len(weights)
        a = np.zeros(k, dtype=np.int64)
        s = np.empty(PERIOD, dtype=np.int64)
        o = np.empty(PERIOD, dtype=np.int64)
        w = self.weights
        for n in range(PERIOD):
            # deadlines
            ok = (w * (n + 1) - a * PERIOD) * (2 * k - 2) >= PERIOD if k > 1 else np.ones(1, bool)
            dl = np.where(
                ok, ((2 * k - 2) * PERIOD * (a + 1) - PERIOD) // np.maximum(1, (2 * k - 2) * w) if k > 1 else 0, 1 << 62
            )
            i = int(np.argmin(dl))
            s[n] = i
            o[n] = a[i]
            a[i] += 1
        self.s, self.o = s, o

    def locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        p, r = np.divmod(numbers, PERIOD)
        src = self.s[r]
        return src, p * self.weights[src] + self.o[r]

    def counts(self, number: int) -> NDArray[np.int64]:
        p, r = divmod(number, PERIOD)
        return p * self.weights + np.bincount(self.s[:r], minlength=len(self.weights))
