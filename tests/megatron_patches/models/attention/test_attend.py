"""Attention of whole samples, of every pattern, with bias, scale and shared keys or without."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from megatron_patches.models.attention.attend import attend
from megatron_patches.models.attention.kernel_choice import KernelChoice
from megatron_patches.models.attention.pattern import CAUSAL, FULL, Ranges, Whole
from megatron_patches.models.attention.whole import ScoreBias

BATCH, HEADS, QUERIES, SIZE = 2, 4, 7, 8


def tensors(groups: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(groups + keys)
    query = torch.randn(BATCH, HEADS, QUERIES, SIZE, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(BATCH, groups, keys, SIZE, generator=generator, dtype=torch.float64) for _ in range(2))
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


STARTS = torch.tensor([[0, 0, 1, 2, 2, 0, 3], [0, 1, 1, 0, 4, 5, 6]])
VISIBLE = torch.stack([STARTS, torch.arange(1, QUERIES + 1).maximum(STARTS + 1).expand(BATCH, -1)], dim=-1)
SELF: dict[str, Whole] = {"full": FULL, "causal": CAUSAL, "ranges": Ranges(VISIBLE)}
CASES = [*((pattern, QUERIES) for pattern in SELF.values()), (FULL, 5)]


def sees(pattern: Whole, sample: int, query: int, key: int) -> bool:
    """The definition of each pattern, one pair at a time."""
    if pattern == CAUSAL:
        return key <= query
    if isinstance(pattern, Ranges):
        return bool(pattern.visible[sample, query, 0] <= key < pattern.visible[sample, query, 1])
    return True


def hidden_pairs(pattern: Whole, keys: int) -> Tensor:
    """bool `[batch, 1, queries, keys]`."""
    pairs = itertools.product(range(BATCH), range(QUERIES), range(keys))
    return torch.tensor([not sees(pattern, *pair) for pair in pairs]).view(BATCH, 1, QUERIES, keys)


def written_out(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    repeats = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    scores = query @ key.transpose(-1, -2) * scale
    if bias is not None:
        scores = scores + bias
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value


@pytest.mark.parametrize(("pattern", "keys"), CASES, ids=[*SELF, "cross"])
def test_attend_is_the_formula(pattern: Whole, keys: int) -> None:
    """Outputs, and gradients of queries, keys, values and a learned bias."""
    hidden = hidden_pairs(pattern, keys)
    for groups, biased, scale in itertools.product((4, 2, 1), (False, True), (None, 0.3)):
        inputs = tensors(groups, keys)
        bias = torch.randn(1, HEADS, QUERIES, keys, dtype=torch.float64, requires_grad=True) if biased else None
        made = attend(*inputs, pattern, bias=None if bias is None else ScoreBias(bias), scale=scale)
        expected = written_out(*inputs, hidden, bias, scale or 1 / math.sqrt(SIZE))
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-6)
        learned = [*inputs, *([] if bias is None else [bias])]
        weights = torch.randn_like(expected)
        ours = torch.autograd.grad((made * weights).sum(), learned)
        theirs = torch.autograd.grad((expected * weights).sum(), learned)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_a_bias_that_hides_is_taken_as_it_is() -> None:
    """ALiBi's causal bias is made once; a mask beside it would cost a pass over all scores in each layer."""
    query, key, value = tensors(HEADS, QUERIES)
    bias = torch.randn(1, HEADS, QUERIES, QUERIES, dtype=torch.float64)
    later = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)
    made = attend(query, key, value, CAUSAL, bias=ScoreBias(bias.masked_fill(later, -torch.inf), hides=True))
    torch.testing.assert_close(made, attend(query, key, value, CAUSAL, bias=ScoreBias(bias)))


@pytest.mark.parametrize("name", SELF)
def test_keys_that_a_kernel_does_not_share_are_repeated(name: str) -> None:
    query, key, value = tensors(2, QUERIES)
    shared, repeated = (
        attend(query, key, value, SELF[name], kernel=KernelChoice(shares_keys=shares)) for shares in (True, False)
    )
    torch.testing.assert_close(shared, repeated)


def test_patterns_differ() -> None:
    query, key, value = tensors(HEADS, QUERIES)
    made = [attend(query, key, value, pattern) for pattern in SELF.values()]
    for one, other in itertools.combinations(made, 2):
        assert (one - other).abs().max() > 0.1
