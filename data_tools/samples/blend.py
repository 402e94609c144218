"""Which source each sample of a blend comes from, and which of its samples it is: arithmetic over one short period.

Weights are whole numbers that sum to `PERIOD`, so the pattern repeats after that many samples and each source then has
had exactly its weight. Within a period samples are assigned as R. Tijdeman, "The chairman assignment problem" (1980):
for k sources, the j-th sample of a source of weight w may not come before its lead over n w / PERIOD would pass
1 - 1 / (2 k - 2), nor after its lag would; of those that may come, the one that is due first does. At every place n of
the order, each source has then given n w / PERIOD samples to within 1 - 1 / (2 k - 2), so to less than one, which is
as good as any order can promise. The order is part of every run's result: it may never change, and tests hold golden
values.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from megatron_patches.errors import TrainyardError

PERIOD = 65_536
"""samples after which a blend repeats: shares are multiples of 0.0015 %"""
LARGEST_NUMBER = 1 << 53


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as whole numbers that sum to `PERIOD`; see `apportion`. Those that are such already stay what they are.

    Raises:
        TrainyardError: as `apportion`.
    """
    return apportion(weights, PERIOD)


def apportion(weights: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers, in proportion to weights, by largest remainder; of equal remainders the first is rounded up.

    A weight that would come to less than 1 counts as 1, and the others share what is left. Computed in whole numbers,
    so the same on every machine.

    Args:
        weights: any positive numbers; they need not sum to 1.
        total: what the whole numbers sum to, from 1 to `PERIOD`.

    Raises:
        TrainyardError: there is no weight, more than `total`, or one that is not a positive, finite number.
    """
    if not 1 <= len(weights) <= total:
        raise TrainyardError(f"a blend of {len(weights):,} sources; give 1 to {total:,} of them")
    for number, weight in enumerate(weights, 1):
        if not 0 < weight < float("inf"):
            raise TrainyardError(
                f"source {number} of {len(weights):,} has a weight of {weight}, which is not a positive, finite "
                "number; give it another weight, or leave the source out"
            )
    exact = _as_integers(weights)
    whole = [1] * len(weights)
    ascending = sorted(range(len(weights)), key=exact.__getitem__)
    small, left, sum_of_left = 0, total, sum(exact)
    # each that counts as 1 leaves less to the larger ones, so that one pass finds them all
    while exact[ascending[small]] * left < sum_of_left:
        small, left, sum_of_left = small + 1, left - 1, sum_of_left - exact[ascending[small]]
    large = ascending[small:]
    remainders = []
    for source in large:
        whole[source], remainder = divmod(exact[source] * left, sum_of_left)
        remainders.append((-remainder, source))
    for _, source in sorted(remainders)[: left - sum(whole[source] for source in large)]:
        whole[source] += 1
    return tuple(whole)


def _as_integers(weights: Sequence[float]) -> list[int]:
    """The same proportions, exactly: a float is a whole number over a power of two."""
    ratios = [weight.as_integer_ratio() for weight in weights]
    common = max(denominator for _, denominator in ratios)
    return [numerator * (common // denominator) for numerator, denominator in ratios]


class BlendPattern:
    """The order in which a blend takes samples of its sources.

    It holds 3 or 4 bytes for each place of a period (none for a single source), and answers in O(1) for each number.

    Args:
        weights: samples of each source in a period, from `whole_weights`.

    Raises:
        TrainyardError: a weight is not positive, or they do not sum to `PERIOD`.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or min(weights) < 1 or sum(weights) != PERIOD:
            raise TrainyardError(
                f"the whole weights of a blend are positive and sum to {PERIOD:,}; these are {len(weights):,}, from "
                f"{min(weights, default=0)} to {max(weights, default=0)}, and sum to {sum(weights):,}. "
                "Make them with whole_weights"
            )
        self.weights: NDArray[np.int64] = np.array(weights, dtype=np.int64)
        """Samples of each source in a period, int64 [sources]."""
        self._sources: NDArray[np.unsignedinteger] | None = None
        """Source of each place, [PERIOD]."""
        self._ordinals: NDArray[np.uint16] | None = None
        """How many samples of that source the period has before the place, [PERIOD]."""
        if len(weights) > 1:
            self._sources = _one_period(self.weights)
            self._ordinals = _ordinals(self._sources, self.weights)

    def locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where samples of the blend come from.

        Args:
            numbers: of samples of the blend, from 0 to 2**53, of any shape.

        Returns:
            The source of each, and its number within that source, both int64 of the shape of `numbers`.

        Raises:
            TrainyardError: a number is negative, or larger than 2**53.
        """
        asked = np.asarray(numbers, dtype=np.int64)
        if asked.size and (asked.min() < 0 or asked.max() > LARGEST_NUMBER):
            raise TrainyardError(f"samples {asked.min()} to {asked.max()} of a blend do not lie in [0, 2**53]")
        if self._sources is None or self._ordinals is None:
            return np.zeros_like(asked), asked.copy()
        periods, places = np.divmod(asked, PERIOD)
        sources = self._sources[places].astype(np.int64)
        return sources, periods * self.weights[sources] + self._ordinals[places]

    def counts(self, number: int) -> NDArray[np.int64]:
        """Samples of each source among the first `number` of the blend, int64 [sources].

        Raises:
            TrainyardError: the number is negative, or larger than 2**53.
        """
        if not 0 <= number <= LARGEST_NUMBER:
            raise TrainyardError(
                f"the run's order of samples would come to place {number:,}, and places end with 2**53; give fewer "
                "training.steps, or leave out fewer samples (data.skip_samples)"
            )
        periods, rest = divmod(number, PERIOD)
        counts = periods * self.weights
        if self._sources is None:
            return counts + rest
        return counts + np.bincount(self._sources[:rest], minlength=len(counts))

    def first_with(self, source: int, count: int) -> int:
        """How many samples of the blend it takes until a source has given `count`: the last one of them is its own.

        So a source of `count` samples lasts so many samples of the blend, and every one up to the next of its own.

        Raises:
            TrainyardError: there is no such source, or the count is negative, or needs more than 2**53 samples.
        """
        if not 0 <= source < len(self.weights):
            raise TrainyardError(f"source {source} of a blend of {len(self.weights):,}; they are numbered from 0")
        if not 0 <= count <= LARGEST_NUMBER:
            raise TrainyardError(f"{count} samples of a source are not from 0 to 2**53")
        if count == 0:
            return 0
        periods, ordinal = divmod(count - 1, int(self.weights[source]))
        place = ordinal if self._sources is None else int(np.flatnonzero(self._sources == source)[ordinal])
        number = periods * PERIOD + place + 1
        if number > LARGEST_NUMBER:
            raise TrainyardError(f"source {source} gives {count:,} samples only after more than 2**53 of the blend")
        return number


def _one_period(weights: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """Sources of the places of a period.

    A sample of a source, the a-th from 0, may come at the first n with n w / PERIOD - a >= 1 / m, where m = 2 k - 2,
    and must at the last n with (n - 1) w / PERIOD - a <= 1 - 1 / m (n counted from 1). Tijdeman proves that these can
    all be met, hence they are where what is due first always comes first. All in whole numbers below 2**50.
    """
    m = 2 * len(weights) - 2
    sources = np.repeat(np.arange(len(weights)), weights)
    before = np.arange(PERIOD) - np.repeat(np.cumsum(weights) - weights, weights)
    scaled = m * weights[sources]
    first = -(-PERIOD * (1 + m * before) // scaled)
    last = PERIOD * (m * (before + 1) - 1) // scaled + 1
    order = np.argsort(first, kind="stable")
    # one whole number a sample: by deadline, then by source
    due = (last * PERIOD + sources)[order].tolist()
    arrived = np.searchsorted(first[order], np.arange(PERIOD + 1), side="right").tolist()
    waiting: list[int] = []
    chosen: list[int] = []
    for n in range(1, PERIOD + 1):
        for sample in due[arrived[n - 1] : arrived[n]]:
            heappush(waiting, sample)
        chosen.append(heappop(waiting))
        assert chosen[-1] >= n * PERIOD, "a sample came after its deadline, which Tijdeman's theorem excludes"
    return (np.array(chosen) % PERIOD).astype(np.uint8 if len(weights) <= 256 else np.uint16)


def _ordinals(sources: NDArray[np.unsignedinteger], weights: NDArray[np.int64]) -> NDArray[np.uint16]:
    """How many places before each have its source, [PERIOD]."""
    ordinals = np.empty(PERIOD, dtype=np.uint16)
    by_source = np.argsort(sources, kind="stable")
    ordinals[by_source] = np.arange(PERIOD) - np.repeat(np.cumsum(weights) - weights, weights)
    return ordinals
