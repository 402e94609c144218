"""Samples that a run leaves out: from what was trained on to places in the run's order, and back. Arithmetic, no state.

A run's order of samples goes on for ever, epoch after epoch; its places are numbered from 0. Where nothing is left out,
the n-th sample that is trained on is the one at place n.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import shortened

LAST_PLACE = 1 << 53
"""places are below this: what every program that reads JSON or YAML can tell from its neighbours"""

Range = tuple[int, int]
"""places from the first number on, below the second"""


class SkippedSamples:
    """Ranges of places that are left out. What is read is a pure function of how much was trained on, so a run that is
    told so from the start and one that is told before it comes there read the same.

    Args:
        ranges: in any order; they may touch or overlap.
    """

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self.ranges = united((first, end) for first, end in ranges)
        lengths = [end - first for first, end in self.ranges]
        left_out = np.cumsum([0, *lengths], dtype=np.int64)
        self._left_out = left_out
        """samples that the first n ranges leave out"""
        self._trained_before = np.array([first for first, _ in self.ranges], dtype=np.int64) - left_out[:-1]
        """samples that are trained on before each range"""

    def places(self, trained: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in the order of samples by their number among those that are trained on, from 0; int64, same shape."""
        passed = np.searchsorted(self._trained_before, trained, side="right")
        return np.asarray(trained + self._left_out[passed], dtype=np.int64)

    def reached(self, trained: int) -> int:
        """The first place behind the samples of which so many were trained on; what is left out there is not passed."""
        return int(self.places(np.array([trained - 1], dtype=np.int64))[0]) + 1 if trained else 0

    def passed(self, trained: int) -> int:
        """How many were left out before so many were trained on."""
        return self.reached(trained) - trained

    @property
    def count(self) -> int:
        """How many are left out in all."""
        return int(self._left_out[-1])


def ranges_of(value: object) -> list[Range]:
    """Ranges as YAML and JSON have them: a list of pairs, in order.

    Raises:
        TrainyardError: something else stands there.
    """
    if not isinstance(value, list):
        raise TrainyardError(f"{shortened(value, 40)} is no list of ranges of samples, such as [[8000, 9600]]")
    found: list[Range] = []
    for each in value:
        pair = [whole_of(number, LAST_PLACE + 1) for number in each] if isinstance(each, list) else []
        if len(pair) != 2 or pair[0] is None or pair[1] is None or pair[0] >= pair[1]:
            raise TrainyardError(
                f"{shortened(each, 40)} is no range of samples: write [FROM, TO], of which FROM is the first that is "
                "left out, counted from 0, and TO the first that is read again"
            )
        if found and pair[0] < found[-1][1]:
            raise TrainyardError(
                f"{shortened(each, 40)} begins before {found[-1][1]}, where the range before it ends; put them in order"
            )
        found.append((pair[0], pair[1]))
    return found


def united(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same places as few ranges, in order, that do not touch."""
    found: list[Range] = []
    for first, end in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return tuple(found)


def without(ranges: Iterable[Range], others: Iterable[Range]) -> tuple[Range, ...]:
    """The places of some ranges that others do not hold."""
    ours, theirs = united(ranges), united(others)
    edges = sorted({edge for each in (*ours, *theirs) for edge in each})
    return united((first, end) for first, end in pairwise(edges) if _holds(ours, first) and not _holds(theirs, first))


def first_difference(ranges: Iterable[Range], others: Iterable[Range]) -> int | None:
    """The first place that one leaves out and the other does not; None where they leave out the same."""
    ours, theirs = united(ranges), united(others)
    edges = sorted({edge for each in (*ours, *theirs) for edge in each})
    return next((edge for edge in edges if _holds(ours, edge) != _holds(theirs, edge)), None)


def _holds(ranges: Sequence[Range], place: int) -> bool:
    return any(first <= place < end for first, end in ranges)


def shown(ranges: Iterable[Range]) -> str:
    """As command lines take them: 80:160, 400:480."""
    return ", ".join(f"{first}:{end}" for first, end in ranges)
