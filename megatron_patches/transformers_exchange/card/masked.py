"""What two models fill in for masked tokens of the same texts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from megatron_patches.transformers_exchange.card.card import NEAR_TIE, MaskedFigures, NotEqual
from megatron_patches.transformers_exchange.card.logits import distance_of_first_two, split_places

CHECK = "masked tokens"
_EVERY = 7
"""one place in this many is masked: about the 15 % of BERT's training"""
_FIRST = 3


def masked_places(ids: Tensor) -> Tensor:
    """Places that are masked in every sample of ids `[samples, positions]`, int64 `[places]`; one or more."""
    return torch.arange(min(_FIRST, ids.shape[1] - 1), ids.shape[1], _EVERY)


def with_masks(ids: Tensor, mask: int) -> Tensor:
    """The same ids with the mask token at these places."""
    return ids.index_fill(1, masked_places(ids), mask)


def masked_parts(ids: Tensor, vocabulary: int) -> tuple[Tensor, ...]:
    """The places, in parts whose logits are made together."""
    return split_places(masked_places(ids), len(ids), vocabulary)


def likeliest(parts: Iterable[Tensor]) -> Tensor:
    """The likeliest token at each place, int64 `[samples, places]`, of logits `[samples, places, vocabulary]`."""
    return torch.cat([part.argmax(-1).cpu() for part in parts], dim=1)


def compare_masked(filled: Tensor, parts: Iterable[Tensor]) -> MaskedFigures:
    """Compares the folder's likeliest tokens with those of the checkpoint.

    Args:
        filled: the folder's, int64 `[samples, places]`.
        parts: the checkpoint's logits, fp32 `[samples, places, vocabulary]` each.

    Raises:
        NotEqual: a token is another one, and no near tie.
    """
    found = [(part.argmax(-1).cpu(), distance_of_first_two(part).cpu()) for part in parts]
    ours, gaps = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    same = ours == filled
    apart = (~same & (gaps > NEAR_TIE)).nonzero()
    if len(apart):
        sample, place = apart[0].tolist()
        raise NotEqual(
            CHECK,
            f"{len(apart)} of {same.numel()} are filled in otherwise: masked token {place + 1} of sample {sample} is "
            f"{int(ours[sample, place])} by the checkpoint and {int(filled[sample, place])} by the folder, and the "
            f"checkpoint's first two logits are {float(gaps[sample, place]):.3g} apart (a near tie is {NEAR_TIE:g})",
        )
    return MaskedFigures(tokens=same.numel(), equal=int(same.sum()), near_ties=int((~same).sum()))
