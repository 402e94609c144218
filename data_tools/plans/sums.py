"""Sums over stretches of tokens, by cumulative sums: stretches that overlap cost no more than the tokens they cover."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.cutting import cut
from data_tools.plans.extents import Stretches

TOKENS_AT_ONCE = 1 << 18
"""cumulative sums of as many fit into a processor's cache"""

Values = Callable[[Stretches], NDArray[np.integer]]
"""values of the tokens of stretches that do not overlap, end to end: [features, tokens]"""


def sums(stretches: Stretches, values: Values, features: int, at_once: int = TOKENS_AT_ONCE) -> NDArray[np.int64]:
    """The sum of each feature over each stretch.

    Args:
        stretches: in file order, none of them empty, [n].

    Returns:
        int64 [features, n].
    """
    count = len(stretches.starts)
    if not count:
        return np.zeros((features, 0), dtype=np.int64)
    if stretches.lengths.max() > at_once:
        pieces = cut(stretches, at_once, at_once, balance_last=False)
        firsts = np.searchsorted(np.cumsum(pieces.lengths), np.cumsum(stretches.lengths) - stretches.lengths, "right")
        order = np.argsort(pieces.starts, kind="stable")  # pieces of stretches that overlap lie among each other
        of_pieces = np.empty((features, len(order)), dtype=np.int64)
        of_pieces[:, order] = sums(Stretches(pieces.starts[order], pieces.lengths[order]), values, features, at_once)
        return np.add.reduceat(of_pieces, firsts, axis=1)
    found = np.empty((features, count), dtype=np.int64)
    read = np.cumsum(stretches.lengths)
    first = 0
    while first < count:
        limit = at_once + (read[first - 1] if first else 0)
        last = int(np.searchsorted(read, limit, "right"))
        chosen = Stretches(stretches.starts[first:last], stretches.lengths[first:last])
        found[:, first:last] = _sums_together(chosen, values, features)
        first = last
    return found


def _sums_together(stretches: Stretches, values: Values, features: int) -> NDArray[np.int64]:
    run_of, runs = merged(stretches)
    before = np.cumsum(runs.lengths) - runs.lengths
    totals = np.zeros((features, int(runs.lengths.sum()) + 1), dtype=np.int64)
    np.cumsum(values(runs), axis=1, out=totals[:, 1:])
    at = stretches.starts + (before - runs.starts)[run_of]
    return totals[:, at + stretches.lengths] - totals[:, at]


def merged(stretches: Stretches) -> tuple[NDArray[np.int64], Stretches]:
    """Stretches that touch or overlap as one: the number of each one's run, int64 [n], and the runs.

    Args:
        stretches: in file order, at least one.
    """
    reach = np.maximum.accumulate(stretches.ends)
    begins = np.append(True, stretches.starts[1:] > reach[:-1])
    firsts = np.flatnonzero(begins)
    starts = stretches.starts[firsts]
    return np.cumsum(begins) - 1, Stretches(starts, reach[np.append(firsts[1:], len(begins)) - 1] - starts)
