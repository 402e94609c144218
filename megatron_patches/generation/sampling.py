"""Choosing the next token of a continuation."""

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
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise TrainyardError(f"temperature {self.temperature}: give 0 (the likeliest token) or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise TrainyardError(f"top-k {self.top_k}: give 1 or more, or leave it out to choose among all tokens")


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One id by logits, fp32 `[vocabulary]` on the CPU (a generator draws the same numbers on every machine there)."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    kept = min(sampling.top_k or len(logits), len(logits))
    values, ids = logits.topk(kept)
    shares = (values / sampling.temperature).softmax(-1)
    return int(ids[torch.multinomial(shares, 1, generator=generator)])
