"""Best-fit decreasing, over counts by length instead of one text after the other.

Each text, the longest first, goes into the fullest pack that still takes it, or into a new one. Texts of one length
are alike, and so are packs with the same room; therefore all packs of the least sufficient room take their texts of
this length in one step. Best fit is within 11/9 of the fewest packs (Johnson 1974, "Fast algorithms for bin packing").
"""

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray


def pack(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """The pack of each text.

    Args:
        lengths: tokens of each text, from 1 to `capacity`, int64 [n].
        capacity: most tokens of a pack.

    Returns:
        int64 [n]: packs are numbered from 0 in the order of their first texts.
    """
    if not len(lengths):
        return np.empty(0, dtype=np.int64)
    longest_first = np.argsort(-lengths, kind="stable")
    distinct, counts = np.unique(lengths, return_counts=True)
    found = np.empty(len(lengths), dtype=np.int64)
    packs, place = _Packs(capacity), 0
    for length, count in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        found[place : place + count] = packs.take(length, count)
        place += count
    pack_of = np.empty_like(found)
    pack_of[longest_first] = found
    return _in_order_of_appearance(pack_of)


class _Packs:
    """Packs by the room that they have left."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._number = 0
        self._by_room: dict[int, list[NDArray[np.int64]]] = {}
        self._rooms: list[int] = []
        """rooms of which there are packs, ascending"""

    def take(self, length: int, count: int) -> NDArray[np.int64]:
        """Puts texts of one length into packs; the pack of each, int64 [count]."""
        found = []
        while count:
            place = bisect_left(self._rooms, length)
            if place < len(self._rooms):
                room = self._rooms.pop(place)
                packs = np.concatenate(self._by_room.pop(room))
            else:
                room = self._capacity
                packs = np.arange(self._number, self._number - (-count // (room // length)))
                self._number += len(packs)
            # the fullest pack that takes a text is, after that, the fullest that takes another one
            each = room // length
            filled = min(count // each, len(packs))
            found.append(np.repeat(packs[:filled], each))
            self._put(packs[:filled], room - each * length)
            count -= filled * each
            if filled < len(packs):
                found.append(np.repeat(packs[filled], count))
                self._put(packs[filled : filled + 1], room - count * length)
                self._put(packs[filled + 1 :], room)
                count = 0
        return np.concatenate(found)

    def _put(self, packs: NDArray[np.int64], room: int) -> None:
        if not len(packs) or not room:
            return
        if room not in self._by_room:
            self._by_room[room] = []
            insort(self._rooms, room)
        self._by_room[room].append(packs)


def _in_order_of_appearance(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers 0 to n - 1, each of which occurs, in the order in which they first do."""
    _, first = np.unique(numbers, return_index=True)
    renamed = np.empty(len(first), dtype=np.int64)
    renamed[np.argsort(first)] = np.arange(len(first))
    return renamed[numbers]
