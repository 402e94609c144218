"""Samples that say which of their tokens are one text, and which of them are to be predicted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.objective_config import CausalConfig, ObjectiveConfig, PrefixLMConfig
from tests.megatron_patches.objectives.test_objectives import END, EVERY_CAUSAL, EVERY_PREFIX_LM, SEED, micro_batch

PACKED = torch.tensor([[5, 6, 7, 8, 9, 3, 4, 0, 0]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, -1, -1]])


def made(config: ObjectiveConfig, **items: Tensor) -> MicroBatch:
    samples = np.arange(len(items["tokens"]))
    return build_objective(config, SEED, None)(items, samples)


def test_a_pack_of_three_texts_and_padding() -> None:
    config = CausalConfig(name="causal", reset_attention=True, reset_positions=True)
    batch = made(config, tokens=PACKED, segments=SEGMENTS)
    assert batch.inputs["tokens"].tolist() == [[5, 6, 7, 8, 9, 3, 4, 0]]
    assert batch.labels.tolist() == [[6, 7, 8, 9, 3, 4, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 0, 1, 0, 1, 0, 0]]  # 3 + 2 + 2 tokens give 2 + 1 + 1 targets
    assert batch.inputs["positions"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 0]]
    assert batch.inputs["documents"].tolist() == [[0, 0, 0, 3, 3, 5, 5, 7]]


def test_answers_alone_are_predicted() -> None:
    answers = torch.tensor([[0, 0, 1, 1, 1, 0, 1, 1, 1]])
    batch = made(CausalConfig(name="causal"), tokens=PACKED, segments=SEGMENTS, answers=answers)
    # the first token of a text is predicted by nothing, though it is an answer; padding is no answer, whatever it says
    assert batch.weights.tolist() == [[0, 1, 0, 1, 0, 1, 0, 0]]
    whole = made(CausalConfig(name="causal"), tokens=PACKED, answers=answers)
    assert whole.weights.tolist() == [[0, 1, 1, 1, 0, 1, 1, 1]]


@pytest.mark.parametrize("config", [*EVERY_CAUSAL, *EVERY_PREFIX_LM], ids=lambda config: config.describe())
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=10, max_size=10), min_size=1, max_size=3))
def test_segments_are_documents(config: ObjectiveConfig, rows: list[list[int]]) -> None:
    """Texts that end with the token that ends documents give what finding that token gives, and no loss behind it."""
    tokens = torch.tensor(rows)
    ends = torch.cumsum(tokens == END, dim=1) - (tokens == END).long()
    without_loss = config.model_copy(update={"loss_after_end_of_document": False})
    found, told = micro_batch(without_loss, tokens, np.arange(len(rows))), made(config, tokens=tokens, segments=ends)
    assert found.inputs.keys() == told.inputs.keys()
    for name, values in found.inputs.items():
        assert torch.equal(values, told.inputs[name]), name
    assert torch.equal(found.weights, told.weights) and torch.equal(found.labels, told.labels)


def test_a_prefix_of_each_text_of_a_pack() -> None:
    """A text's tokens see none of another's, and padding sees itself."""
    config = PrefixLMConfig(name="prefix_lm", reset_attention=True)
    visible = made(config, tokens=PACKED, segments=SEGMENTS).inputs["visible"][0].tolist()
    of_text = [(0, 3)] * 3 + [(3, 5)] * 2 + [(5, 7)] * 2 + [(7, 8)]
    for place, ((first, last), (start, end)) in enumerate(zip(visible, of_text, strict=True)):
        assert first == start and place < last <= end


def test_a_prefix_is_drawn_within_the_text_and_not_over_padding() -> None:
    """Else a short text in a long sample would mostly be all prefix, and have no target."""
    texts = torch.full((64, 101), -1)
    texts[:, :10] = 0
    batch = made(PrefixLMConfig(name="prefix_lm"), tokens=torch.ones_like(texts), segments=texts)
    prefixes = batch.inputs["visible"][:, 0, 1]
    assert prefixes.min() == 1 and prefixes.max() == 10
    # a prefix of 10 leaves none of the 9 tokens behind the first; every other one leaves 10 - its length
    assert batch.weights.sum(dim=1).tolist() == (10 - prefixes).tolist()
    assert (batch.inputs["visible"][:, 10:, 0] == 10).all(), "padding sees padding alone"
