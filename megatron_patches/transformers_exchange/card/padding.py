"""Texts of several lengths in one batch: whether padding changes what a model says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from megatron_patches.transformers_exchange.card.card import LARGEST_DIFFERENCE, NotEqual, PaddingFigures

CHECK = "padding"
Side = Literal["right", "left"]
SIDES: tuple[Side, ...] = ("right", "left")
_LONGEST = 32
"""positions of the longest text; logits of all texts are in memory, of both models"""
_SHARES = (1, 2, 5)
"""how many times as long as each text the longest one is"""


@dataclass(frozen=True)
class PaddedBatch:
    """Texts in one batch."""

    ids: Tensor
    """int64 `[texts, longest]`; padding is tokens of the texts, which would tell if they were seen"""
    mask: Tensor
    """int64 of the same shape: 1 at tokens, 0 at padding"""

    def unpadded(self, logits: Tensor) -> list[Tensor]:
        """Logits of each text, `[length, vocabulary]`, out of `[texts, longest, vocabulary]`."""
        return [row[shown.bool()] for row, shown in zip(logits.cpu(), self.mask, strict=True)]


def short_texts(ids: Tensor) -> list[Tensor]:
    """The beginnings of three samples, or of one, of different lengths: int64 `[length]` each, of `[samples,
    positions]`."""
    longest = min(_LONGEST, ids.shape[1])
    return [ids[number % len(ids), : -(-longest // share)] for number, share in enumerate(_SHARES)]


def padded(texts: Sequence[Tensor], side: Side) -> PaddedBatch:
    """The texts in one batch, padded to the longest on one side."""
    longest = max(map(len, texts))
    ids = texts[0].flip(0).repeat(len(texts), 1)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        places = slice(0, len(text)) if side == "right" else slice(longest - len(text), longest)
        ids[row, places], mask[row, places] = text, 1
    return PaddedBatch(ids, mask)


class PaddedLogits:
    """What a folder's model says of texts alone and padded."""

    def __init__(self, texts: Sequence[Tensor], logits: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        """Args: logits: of the folder's model, `[texts, positions, vocabulary]` of ids and an attention mask."""
        self._texts = texts
        self._alone = [logits(text[None], None)[0].cpu() for text in texts]
        batches = {side: padded(texts, side) for side in SIDES}
        self._padded = {side: each.unpadded(logits(each.ids, each.mask)) for side, each in batches.items()}

    def compare(self, logits: Callable[[Tensor], Tensor]) -> PaddingFigures:
        """Figures of the checkpoint's logits of each text alone beside the folder's of all of them together.

        Args:
            logits: of the checkpoint's model, `[length, vocabulary]` of ids `[length]`.

        Raises:
            NotEqual: a logit is no number or differs; the side and the first such text are told.
        """
        ours = [logits(text).cpu() for text in self._texts]
        largest = 0.0
        for side, padded_ones in self._padded.items():
            for number, found in enumerate(padded_ones):
                for alone, whose in ((self._alone[number], "the folder"), (ours[number], "the checkpoint")):
                    difference = float((found - alone).abs().max())
                    if not difference <= LARGEST_DIFFERENCE:
                        raise NotEqual(CHECK, _told(difference, side, number, whose))
                    largest = max(largest, difference)
        tokens = sum(map(len, self._texts))
        return PaddingFigures(texts=len(self._texts), tokens=tokens, sides=SIDES, largest_difference=largest)


def _told(difference: float, side: Side, number: int, whose: str) -> str:
    return (
        f"logits of text {number + 1} in a batch that is padded on its {side} differ by {difference:.3g} from those of "
        f"the text alone by {whose} (at most {LARGEST_DIFFERENCE:g}): its tokens see the padding, or their places count"
    )
