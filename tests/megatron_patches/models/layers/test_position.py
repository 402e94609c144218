"""Position embeddings against transformers and against their definitions."""

import math

import pytest
import torch

from megatron_patches.models.attention.pattern import CAUSAL
from megatron_patches.models.layers.position import RotaryPositions, alibi_slopes
from megatron_patches.models.layers.position_config import RotaryPositionConfig
from megatron_patches.models.layers.token_context import TokenContext

PLAIN = TokenContext(CAUSAL)


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 16, 112])
def test_slopes_equal_transformers(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    alibi = build_alibi_tensor(torch.ones(1, 3), heads, torch.float32)  # [heads, 1, 3]: slope times 0, 1, 2
    torch.testing.assert_close(torch.tensor(alibi_slopes(heads)), alibi[:, 0, 1])


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_interleaved_pairs_turn_as_complex_numbers(fraction: float) -> None:
    """The paper's equation 34, with features 2i and 2i + 1 as one complex number."""
    rotary = rotary_of(fraction, "interleaved")
    query = torch.randn(2, 3, 5, 16)
    turned, _ = rotary.queries_and_keys(query, query, PLAIN)
    features = int(16 * fraction)
    numbers = torch.view_as_complex(query[..., :features].unflatten(-1, (-1, 2)).contiguous())
    angles = torch.arange(5)[:, None] * 100.0 ** (-torch.arange(0, features, 2) / features)
    expected = torch.view_as_real(numbers * torch.exp(1j * angles)).flatten(-2)
    torch.testing.assert_close(turned, torch.cat([expected, query[..., features:]], dim=-1))


def test_halves_are_the_same_pairs_in_another_order() -> None:
    query = torch.randn(2, 3, 5, 16)
    order = [*range(0, 16, 2), *range(1, 16, 2)]
    by_half, _ = rotary_of(1.0, "half").queries_and_keys(query[..., order], query, PLAIN)
    neighbours, _ = rotary_of(1.0, "interleaved").queries_and_keys(query, query, PLAIN)
    torch.testing.assert_close(by_half, neighbours[..., order])


def test_rotary_reads_the_positions_that_tokens_have() -> None:
    query, rotary = torch.randn(2, 3, 4, 16), rotary_of(1.0, "half")
    same = TokenContext(CAUSAL, positions=torch.arange(4).expand(2, 4))
    anew = TokenContext(CAUSAL, positions=torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]]))
    plain, given, reset = (rotary.queries_and_keys(query, query, c)[0] for c in (PLAIN, same, anew))
    assert torch.equal(plain, given)
    assert torch.equal(reset[1], plain[1])
    shifted = rotary.queries_and_keys(query[:1, :, 2:], query[:1, :, 2:], PLAIN)[0]
    assert torch.equal(reset[:1, :, 2:], shifted) and not torch.equal(reset[0, :, 2:], plain[0, :, 2:])


def test_scores_know_distances_only() -> None:
    query, key, rotary = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16), rotary_of(0.5, "half")

    def score(of_query: int, of_key: int) -> float:
        turned = [
            rotary.queries_and_keys(features, features, TokenContext(CAUSAL, positions=torch.tensor([[place]])))[0]
            for features, place in ((query, of_query), (key, of_key))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert math.isclose(score(7, 3), score(19, 15), abs_tol=1e-5)
    assert not math.isclose(score(7, 3), score(7, 4), abs_tol=1e-3)


def rotary_of(fraction: float, pairs: str) -> RotaryPositions:
    kind = {"name": "rotary", "theta": 100.0, "fraction": fraction, "pairs": pairs}
    return RotaryPositions(RotaryPositionConfig.model_validate(kind), head_size=16)
