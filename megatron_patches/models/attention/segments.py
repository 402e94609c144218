"""Samples cut into segments that do not see each other: where they begin, found once for all layers of a stage."""

import weakref
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

_FEWEST_CUTS = 64
"""Entries that are made at least. A compiled block is compiled again for each other number of them."""


@dataclass(frozen=True)
class Order:
    """Another order of the tokens of a micro-batch, each tensor int64 `[tokens]`."""

    places: Tensor
    """where each token of the new order lies in the old one"""
    back: Tensor
    """where each token of the old order lies in the new one"""


@dataclass(frozen=True)
class ByLength:
    """Segments of one length together, the shortest first; those of one length stay in their order."""

    runs: tuple[tuple[int, int], ...]
    """how many segments, and the tokens of each"""
    order: Order | None
    """of the tokens; None where those of one length are neighbours already, and nothing moves"""


class Segments:
    """Each token sees its own segment alone, with `causal` only up to its own position.

    The samples of a micro-batch lie one after the other, and so do their segments.
    """

    def __init__(self, cuts: Tensor, count: int, longest: int, causal: bool) -> None:
        """See the attributes; `count` is the number of segments."""
        self.cuts = cuts
        """int32 `[a power of two, more than count]`: first token of each segment, then the number of all tokens,
        repeated"""
        self._count = count
        self.longest = longest
        """tokens that a segment has at most, of any micro-batch: the length of a sample"""
        self.causal = causal

    @cached_property
    def by_length(self) -> ByLength:
        """The segments in as few batches as can be. On a GPU the host waits for it."""
        starts, lengths = self.cuts[: self._count].long(), self.cuts[: self._count + 1].long().diff()
        runs = _runs(lengths)
        by_length = lengths.argsort(stable=True)
        ordered = _runs(lengths[by_length])
        if len(ordered) == len(runs):
            return ByLength(runs, None)
        starts, lengths = starts[by_length], lengths[by_length]
        moved = (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
        places = torch.arange(len(moved), device=moved.device) + moved
        return ByLength(ordered, Order(places, places.argsort()))


def _runs(lengths: Tensor) -> tuple[tuple[int, int], ...]:
    """Neighbours of one length: how many, and their length."""
    length, count = lengths.unique_consecutive(return_counts=True)
    return tuple(zip(count.tolist(), length.tolist(), strict=True))


def find_segments(documents: Tensor, causal: bool) -> Segments:
    """Segments begin where the number changes in int64 `[batch, tokens]`, and with each sample.

    On a GPU the host waits once for their number.
    """
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = begins.flatten().nonzero()[:, 0].int()
    count = starts.shape[0]
    entries = max(_FEWEST_CUTS, 1 << count.bit_length())
    cuts = F.pad(starts, (0, entries - count), value=documents.numel())
    return Segments(cuts, count, documents.shape[1], causal)


class SegmentsOfPass:
    """Segments of the micro-batch that passes through the layers of a stage: the first of them finds them.

    A layer reads each micro-batch once. So where one reads for the second time another micro-batch has come, also if it
    lies in the same tensor: DeepSpeed's pipeline receives every micro-batch into the same buffers.
    """

    def __init__(self, causal: bool) -> None:
        self._causal = causal
        self._documents: weakref.ref[Tensor] | None = None
        self._readers: set[int] = set()
        self._found: Segments | None = None

    def of(self, documents: Tensor, reader: object) -> Segments:
        """The segments of int64 `[batch, tokens]`; `reader` is the layer that asks."""
        same = self._documents is not None and self._documents() is documents
        if self._found is None or not same or id(reader) in self._readers:
            self._documents, self._found = weakref.ref(documents), find_segments(documents, self._causal)
            self._readers.clear()
        self._readers.add(id(reader))
        return self._found
