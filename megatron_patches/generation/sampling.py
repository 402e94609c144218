"""Choosing the next token of a continuation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_patches.errors import TrainyardError


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
    """
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    values, ids = logits.topk(min(sampling.top_k or logits.shape[1], logits.shape[1]))
    shares = (values / sampling.temperature).softmax(-1)
    if sampling.top_p is not None:
        before = shares.cumsum(-1) - shares
        shares = shares.masked_fill(before >= sampling.top_p, 0.0)
        shares[:, 0].clamp_(min=torch.finfo(shares.dtype).tiny)
    pairs = zip(shares.cpu(), generators, strict=True)
    places = torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in pairs])
    return ids.gather(1, places[:, None].to(ids.device))[:, 0].tolist()
