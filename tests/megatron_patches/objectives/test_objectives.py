"""What each token sees, where it thinks it is, and what it weighs: by hand, and as properties of any batch."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives import prefix_lm
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.documents import find_documents, whole_samples
from megatron_patches.objectives.objective_config import CausalConfig, ObjectiveConfig, PrefixLMConfig
from megatron_patches.objectives.prefix_lm import position_weights, prefix_lengths

END = 0
SEED = 7
EVERY_CAUSAL = [
    CausalConfig(name="causal", reset_attention=a, reset_positions=p, loss_after_end_of_document=e)
    for a, p, e in product([False, True], repeat=3)
]
EVERY_PREFIX_LM = [
    PrefixLMConfig(
        name="prefix_lm", reset_attention=a, reset_positions=p, loss_after_end_of_document=e,
        loss_on_targets_only=t, reweight_by_position=r,
    )
    for a, p, e, t, r in product([False, True], repeat=5)
    if not r or (t and not a)
]  # fmt: skip


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, np.ndarray]:
    """Windows in which one token in three ends a document, and the numbers of their samples."""
    rows, positions = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    tokens = draw(st.lists(st.integers(0, 2), min_size=rows * (positions + 1), max_size=rows * (positions + 1)))
    samples = draw(st.lists(st.integers(0, 2**40), min_size=rows, max_size=rows))
    return torch.tensor(tokens).view(rows, positions + 1), np.array(samples)


def micro_batch(config: ObjectiveConfig, windows: Tensor, samples: np.ndarray) -> MicroBatch:
    return build_objective(config, SEED, END if config.reads_document_ends else None)({"tokens": windows}, samples)


def document_of(tokens: list[int], place: int) -> tuple[int, int]:
    """First place and end of the document that a position lies in, looked for token by token."""
    start, end = place, place + 1
    while start > 0 and tokens[start - 1] != END:
        start -= 1
    while end < len(tokens) and tokens[end - 1] != END:
        end += 1
    return start, end


def dense(visible: Tensor) -> Tensor:
    """Whether the token of each position (first) sees that of another (second), bool `[sequence, sequence]`."""
    positions = torch.arange(len(visible))
    return (positions >= visible[:, :1]) & (positions < visible[:, 1:])


def test_a_prefix_of_three_of_five_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right-hand mask of Raffel et al. 2020, figure 4."""
    monkeypatch.setattr(prefix_lm, "prefix_lengths", lambda documents, samples, seed: np.array([3]))
    batch = micro_batch(PrefixLMConfig(name="prefix_lm"), torch.tensor([[4, 5, 6, 7, 8, 9]]), np.array([0]))
    assert batch.inputs.keys() == {"tokens", "visible"}
    assert dense(batch.inputs["visible"][0]).int().tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert batch.weights.tolist() == [[0, 0, 1, 1, 1]]
    assert (batch.inputs["tokens"].tolist(), batch.labels.tolist()) == ([[4, 5, 6, 7, 8]], [[5, 6, 7, 8, 9]])


def test_two_documents_each_with_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_lm, "prefix_lengths", lambda documents, samples, seed: np.array([2, 1]))
    windows = torch.tensor([[4, 5, 6, END, 7, 8, 9]])
    resets = {"reset_attention": True, "reset_positions": True, "loss_after_end_of_document": False}
    batch = micro_batch(PrefixLMConfig(name="prefix_lm", **resets), windows, np.array([0]))
    assert dense(batch.inputs["visible"][0]).int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert batch.inputs["positions"].tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.weights.tolist() == [[0, 1, 1, 0, 1, 1]]


def test_weights_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_lm, "prefix_lengths", lambda documents, samples, seed: np.array([2]))
    windows = torch.tensor([[4, 5, 6, END, 7, 8, 9]])
    reweighted = PrefixLMConfig(name="prefix_lm", reweight_by_position=True, loss_after_end_of_document=False)
    expected = torch.tensor([[0, 10, 8, 0, 4, 2]]) / 7
    torch.testing.assert_close(micro_batch(reweighted, windows, np.array([0])).weights, expected)


def test_documents_are_numbered_within_their_sample() -> None:
    documents = find_documents(torch.tensor([[1, END, END, 2], [3, 4, 5, 6], [END, 7, 8, END]]), END)
    assert documents.row.tolist() == [0, 0, 0, 1, 2, 2]
    assert documents.number.tolist() == [0, 1, 2, 0, 0, 1]
    assert documents.start.tolist() == [0, 2, 3, 0, 0, 1]
    assert documents.length.tolist() == [2, 1, 1, 4, 1, 3]


@given(batches())
def test_the_plain_case_has_tokens_alone(batch: tuple[Tensor, np.ndarray]) -> None:
    windows, samples = batch
    made = micro_batch(CausalConfig(name="causal"), windows, samples)
    assert list(made.inputs) == ["tokens"]
    assert (made.weights == 1).all() and made.weights.dtype == torch.float32
    assert torch.equal(made.inputs["tokens"], windows[:, :-1]) and torch.equal(made.labels, windows[:, 1:])


@settings(max_examples=400)
@given(batches(), st.sampled_from(EVERY_CAUSAL + EVERY_PREFIX_LM))
def test_any_batch_token_by_token(batch: tuple[Tensor, np.ndarray], config: ObjectiveConfig) -> None:
    windows, samples = batch
    made = micro_batch(config, windows, samples)
    assert tuple(made.inputs) == config.inputs.names, "the fields that the section declares, in their order"
    positions, visible, documents = (made.inputs.get(name) for name in ("positions", "visible", "documents"))
    assert (positions is not None) == config.reset_positions
    assert (visible is not None) == isinstance(config, PrefixLMConfig)
    assert (documents is not None) == (config.reset_attention and not isinstance(config, PrefixLMConfig))
    for row, tokens in enumerate(made.inputs["tokens"].tolist()):
        for place, token in enumerate(tokens):
            first, end = document_of(tokens, place)
            if positions is not None:
                assert positions[row, place] == place - first
            weight = 1.0 if config.loss_after_end_of_document or token != END else 0.0
            if documents is not None:
                assert documents[row, place] == first, "a document's number is the position it begins at"
            if visible is not None and isinstance(config, PrefixLMConfig):
                start, stop = visible[row, place].tolist()
                begin = first if config.reset_attention else 0
                assert start == begin and place < stop <= len(tokens), "sees itself, nothing before its document"
                prefix_end = int(visible[row, begin, 1])
                assert begin < prefix_end <= (end if config.reset_attention else len(tokens))
                assert stop == max(place + 1, prefix_end)
                weight *= place >= prefix_end - 1 or not config.loss_on_targets_only
                if config.reweight_by_position:
                    weight *= 2 * (len(tokens) - place) / (len(tokens) + 1)
            assert made.weights[row, place].item() == pytest.approx(weight)


@given(batches(), st.sampled_from(EVERY_PREFIX_LM))
def test_a_prefix_sees_itself_whole_and_what_follows_is_causal(
    batch: tuple[Tensor, np.ndarray], config: PrefixLMConfig
) -> None:
    for seen in map(dense, micro_batch(config, *batch).inputs["visible"]):
        assert seen.diagonal().all()
        both_ways = seen & seen.T
        through_another = (both_ways.int() @ both_ways.int()).bool()
        assert torch.equal(both_ways, through_another), "who sees each other sees the same: blocks"
        assert torch.equal(seen.tril() | both_ways, seen), "nobody sees forward beyond such a block"


@given(batches(), st.sampled_from(EVERY_CAUSAL + EVERY_PREFIX_LM))
def test_a_sample_is_the_same_in_any_batch(batch: tuple[Tensor, np.ndarray], config: ObjectiveConfig) -> None:
    """So micro-batch, layout and a resume change nothing."""
    windows, samples = batch
    together = micro_batch(config, windows, samples)
    for row in range(len(windows)):
        alone = micro_batch(config, windows[row : row + 1], samples[row : row + 1])
        assert torch.equal(alone.weights[0], together.weights[row])
        for name, tensor in together.inputs.items():
            assert torch.equal(alone.inputs[name][0], tensor[row])


def test_every_length_of_a_prefix_is_equally_likely() -> None:
    """7 lengths of 21,000 samples: 3,000 each, standard deviation 51."""
    tokens = torch.ones(21_000, 7, dtype=torch.int64)
    counts = Counter(prefix_lengths(whole_samples(tokens), np.arange(21_000), SEED).tolist())
    assert sorted(counts) == [1, 2, 3, 4, 5, 6, 7]
    assert all(abs(count - 3000) < 200 for count in counts.values())


def test_prefixes_of_seeds_samples_and_documents_are_drawn_apart() -> None:
    ten_documents = torch.tensor([[1] * 99 + [END]] * 10).view(1, 1000)
    documents = find_documents(ten_documents, END)
    drawn = {
        tuple(prefix_lengths(documents, np.array([sample]), seed).tolist()) for sample in range(50) for seed in (1, 2)
    }
    assert len(drawn) == 100
    assert len({lengths[:2] for lengths in drawn}) > 95, "documents of a sample have lengths of their own"
    assert np.corrcoef(np.array(sorted(drawn)), rowvar=False)[0, 1:].max() < 0.4


def test_prefixes_never_change() -> None:
    """Part of every run's result: another number here would make runs that are under way go on differently."""
    documents = whole_samples(torch.ones(6, 2048, dtype=torch.int64))
    drawn = prefix_lengths(documents, np.array([0, 1, 2, 3, 2**33, 2**40]), 1234)
    assert drawn.tolist() == [1676, 1009, 1229, 1703, 581, 390]


def test_position_weights_add_up_to_the_positions() -> None:
    """And undo that place i is a target in i + 1 of s cases, of which it is one in (s + 1) / 2 on average."""
    for length in (1, 2, 7, 2048):
        assert position_weights(length).double().sum().item() == pytest.approx(length, rel=1e-6)
    reversed_frequency = torch.arange(7, 0, -1) / 4
    torch.testing.assert_close(position_weights(7), reversed_frequency)
