"""Choosing the next token of a continuation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_patches.errors import Damaged, TrainyardError

COLDEST = 1e-30
"""the least number that logits are divided by: fp32 has its reciprocal"""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    """divides the logits; 0 takes the likeliest token"""
    top_k: int | None = None
    """choose among so many of the likeliest tokens; None among all"""
    top_p: float | None = None
    """of these, choose among the fewest likeliest that together have this share of the probability (Holtzman et al.
    2020, "The curious case of neural text degeneration", section 3.1); None among all"""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise TrainyardError(f"temperature {self.temperature}: give 0 (the likeliest token) or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise TrainyardError(f"top-k {self.top_k}: give 1 or more, or leave it out to choose among all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise TrainyardError(f"top-p {self.top_p}: give a share above 0 and up to 1, or leave it out")


def choose(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """An id of each row of logits, fp32 `[rows, vocabulary]`.

    `generators` are the rows' own, on the CPU, where they draw the same numbers on every machine.

    Raises:
        Damaged: a logit is no number.
    """
    most, likeliest = logits.max(-1)
    if not most.isfinite().all():  # a maximum is no number where one of the row is none
        raise Damaged("the model's logits are not finite: its training diverged; name an earlier checkpoint")
    if sampling.temperature == 0:
        return likeliest.tolist()
    cooled = (logits - most[:, None]) / max(sampling.temperature, COLDEST)
    count = min(sampling.top_k or logits.shape[1], logits.shape[1])
    top_p = sampling.top_p or 1.0
    if count == logits.shape[1] and top_p == 1:  # all ids count, and to sort 50,000 of them takes 3 ms
        return _drawn(cooled.softmax(-1), generators).tolist()
    values, ids = cooled.topk(count)
    shares = values.softmax(-1)
    if top_p < 1:
        before = shares.cumsum(-1) - shares
        shares = shares.masked_fill(before >= top_p, 0.0)
        shares[:, 0].clamp_(min=torch.finfo(shares.dtype).tiny)
    places = _drawn(shares, generators)
    return ids.gather(1, places[:, None].to(ids.device))[:, 0].tolist()


def _drawn(shares: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A place of each row by its shares, int64 `[rows]` on the CPU."""
    pairs = zip(shares.cpu(), generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in pairs])
