"""Logits of two models at the same places: the first's wait in a file, so that memory holds those of one."""

from __future__ import annotations

from typing import IO

import numpy as np
import torch
from torch import Tensor

from megatron_patches.transformers_exchange.card.card import LARGEST_DIFFERENCE, NEAR_TIE, LogitFigures, NotEqual

CHECK = "logits"
_ROWS = 64
"""positions at a time: 64 of 256,000 logits are 66 MB"""


class KeptLogits:
    """Logits in an open file, read and written from its beginning."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._vocabulary = 0

    def keep(self, logits: Tensor, vocabulary: int) -> None:
        """Writes fp32 `[samples, positions, vocabulary]`.

        Raises:
            NotEqual: there are more or fewer of them than token ids, or one is no number.
        """
        rows = logits.flatten(0, 1)
        if rows.shape[1] != vocabulary:
            raise NotEqual(CHECK, f"the folder's model has {rows.shape[1]:,} of them, and ours {vocabulary:,}")
        _refuse_no_numbers(logits, "the folder's model")
        self._vocabulary = vocabulary
        for part in rows.split(_ROWS):
            self._file.write(part.contiguous().cpu().numpy().data)
        self._file.seek(0)

    def compare(self, logits: Tensor) -> LogitFigures:
        """Figures of ours, `[samples, positions, vocabulary]`, beside those that were kept.

        Raises:
            NotEqual: one is no number, or a threshold is passed: the first place where it is worst is told.
        """
        _refuse_no_numbers(logits, "the checkpoint's model")
        rows = logits.flatten(0, 1)
        parts = [self._compare_rows(part) for part in rows.split(_ROWS)]
        differences, same, gaps = (torch.cat(each) for each in zip(*parts, strict=True))
        figures = LogitFigures(
            positions=len(rows),
            vocabulary=self._vocabulary,
            largest_difference=float(differences.max()),
            largest_logit=float(max(part.abs().max() for part in rows.split(_ROWS))),
            equal_argmax=int(same.sum()),
            near_ties=int((~same & (gaps <= NEAR_TIE)).sum()),
        )
        _refuse_differences(figures, differences, positions=logits.shape[1])
        return figures

    def _compare_rows(self, ours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each position: the largest difference, whether both have one likeliest token, how far apart our first two
        are."""
        kept = np.frombuffer(self._file.read(ours.numel() * 4), np.float32).reshape(ours.shape)
        theirs, here = torch.from_numpy(kept.copy()), ours.cpu()
        return (theirs - here).abs().amax(-1), theirs.argmax(-1) == here.argmax(-1), distance_of_first_two(here)


def distance_of_first_two(logits: Tensor) -> Tensor:
    """Between the largest and the second largest, `[...]` of `[..., vocabulary]`; infinite where there is one token."""
    if logits.shape[-1] == 1:
        return torch.full(logits.shape[:-1], torch.inf)
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def _refuse_no_numbers(logits: Tensor, whose: str) -> None:
    for sample, rows in enumerate(logits):
        for first, part in enumerate(rows.split(_ROWS)):
            if not (finite := part.isfinite().all(-1)).all():
                position = first * _ROWS + int((~finite).nonzero()[0])
                raise NotEqual(CHECK, f"those of {whose} are NaN or infinite at sample {sample}, position {position}")


def _refuse_differences(figures: LogitFigures, differences: Tensor, positions: int) -> None:
    worst = int(differences.argmax())
    first = (
        int((differences > LARGEST_DIFFERENCE).nonzero()[0]) if figures.largest_difference > LARGEST_DIFFERENCE else 0
    )
    apart = figures.positions - figures.equal_argmax - figures.near_ties
    if figures.largest_difference > LARGEST_DIFFERENCE or apart:
        raise NotEqual(
            CHECK,
            f"they differ by {figures.largest_difference:.3g} at sample {worst // positions}, position "
            f"{worst % positions} (at most {LARGEST_DIFFERENCE:g}; first above it at sample {first // positions}, "
            f"position {first % positions}); the likeliest token differs at {apart} of {figures.positions} positions "
            f"whose first two logits are more than {NEAR_TIE:g} apart",
        )
