"""Logits of two models at the same places: the first's wait in a file, and memory holds a part of the other's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import torch
from torch import Tensor

from megatron_patches.transformers_exchange.card.card import LARGEST_DIFFERENCE, NEAR_TIE, LogitFigures, NotEqual

CHECK = "logits"
_PART = 1 << 28
"""bytes of logits that a model makes at once; for each part, a model that is held by blocks reads its head again"""
_ROWS = 64
"""positions that are compared at once: 64 of 256,000 logits are 66 MB"""


def places_in_parts(ids: Tensor, vocabulary: int) -> tuple[Tensor, ...]:
    """All places of ids `[samples, positions]`, int64 `[places]` each, whose logits are made together."""
    return split_places(torch.arange(ids.shape[1]), len(ids), vocabulary)


def split_places(places: Tensor, samples: int, vocabulary: int) -> tuple[Tensor, ...]:
    """The same for some of the places."""
    return places.split(max(1, _PART // (4 * samples * vocabulary)))


class KeptLogits:
    """Logits in an open file, read and written from its beginning."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._vocabulary = 0

    def keep(self, parts: Iterable[Tensor], vocabulary: int) -> None:
        """Writes fp32 `[samples, places, vocabulary]`, part by part.

        Raises:
            NotEqual: there are more or fewer of them than token ids, or one is no number.
        """
        self._vocabulary = vocabulary
        for first, logits in _few_places(parts):
            if logits.shape[-1] != vocabulary:
                raise NotEqual(CHECK, f"the folder's model has {logits.shape[-1]:,} of them, and ours {vocabulary:,}")
            _refuse_no_numbers(logits, first, "the folder's model")
            self._file.write(logits.cpu().contiguous().numpy().data)
        self._file.seek(0)

    def compare(self, parts: Iterable[Tensor]) -> LogitFigures:
        """Figures of ours, in the same parts, beside those that were kept.

        Raises:
            NotEqual: one is no number, or a threshold is passed: the first place where it is worst is told.
        """
        compared = [self._compare_places(first, logits.cpu()) for first, logits in _few_places(parts)]
        differences, same, gaps, largest = (torch.cat(each, dim=1) for each in zip(*compared, strict=True))
        figures = LogitFigures(
            positions=differences.numel(),
            vocabulary=self._vocabulary,
            largest_difference=float(differences.max()),
            largest_logit=float(largest.max()),
            equal_argmax=int(same.sum()),
            near_ties=int((~same & (gaps <= NEAR_TIE)).sum()),
        )
        _refuse_differences(figures, differences)
        return figures

    def _compare_places(self, first: int, ours: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`[samples, places]` each: the largest difference, whether both have one likeliest token, how far apart our
        first two are, our largest logit."""
        _refuse_no_numbers(ours, first, "the checkpoint's model")
        theirs = torch.empty(ours.shape)
        size: int = self._file.readinto(theirs.numpy().data)  # type: ignore[attr-defined]
        assert size == theirs.nbytes, "both are to be given in the same parts"
        same = theirs.argmax(-1) == ours.argmax(-1)
        return theirs.sub_(ours).abs_().amax(-1), same, distance_of_first_two(ours), ours.abs().amax(-1)


def _few_places(parts: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The same in smaller parts, each with the number of its first place."""
    first = 0
    for part in parts:
        for few in part.split(max(1, _ROWS // len(part)), dim=1):
            yield first, few
            first += few.shape[1]


def distance_of_first_two(logits: Tensor) -> Tensor:
    """Between the largest and the second largest, `[...]` of `[..., vocabulary]`; infinite where there is one token."""
    if logits.shape[-1] == 1:
        return torch.full(logits.shape[:-1], torch.inf)
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def _refuse_no_numbers(logits: Tensor, first: int, whose: str) -> None:
    """Args: first: place of the first of them."""
    if not (finite := logits.isfinite().all(-1)).all():
        sample, place = (~finite).nonzero()[0].tolist()
        raise NotEqual(CHECK, f"those of {whose} are NaN or infinite at sample {sample}, position {first + place}")


def _refuse_differences(figures: LogitFigures, differences: Tensor) -> None:
    """Args: differences: `[samples, positions]`."""
    apart = figures.positions - figures.equal_argmax - figures.near_ties
    if figures.largest_difference <= LARGEST_DIFFERENCE and not apart:
        return
    worst = divmod(int(differences.argmax()), differences.shape[1])
    above = (differences > LARGEST_DIFFERENCE).nonzero()
    first = above[0].tolist() if len(above) else worst
    raise NotEqual(
        CHECK,
        f"they differ by {figures.largest_difference:.3g} at sample {worst[0]}, position {worst[1]} (at most "
        f"{LARGEST_DIFFERENCE:g}; first above it at sample {first[0]}, position {first[1]}); the likeliest token "
        f"differs at {apart} of {figures.positions} positions whose first two logits are more than {NEAR_TIE:g} apart",
    )
