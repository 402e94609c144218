"""Which tokens a masked LM hides, what stands in their place, and which of them the loss counts."""

from math import ceil, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives import masked_lm
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import MaskedLMConfig

PAD, CLS, SEP, MASK, END = 0, 1, 2, 3, 4
SPECIAL = SpecialTokens(3000, frozenset({PAD, CLS, SEP, MASK, END, 2999}), MASK, CLS, SEP, PAD)
SEED = 7


def masked(seed: int = SEED, special: SpecialTokens = SPECIAL, **keys: object) -> Objective:
    config = MaskedLMConfig.model_validate({"name": "masked_lm", "reset_attention": False, **keys})
    return build_objective(config, seed, None, special)


def hidden(batch: MicroBatch, tokens: Tensor) -> Tensor:
    """Whether each place is one to be predicted, bool `[batch, sequence]`, whichever way the batch says it."""
    if "picked" not in batch.inputs:
        return batch.weights > 0
    found = torch.zeros(tokens.shape)
    return found.scatter_add(1, batch.inputs["picked"], batch.weights) > 0


def test_the_mix_of_a_million_tokens() -> None:
    """(1 - p) stay, .8 p become the mask token, .1 p another one, .1 p stay and count: each within four deviations."""
    draw = np.random.default_rng(1)
    tokens = torch.from_numpy(draw.integers(5, 2999, (512, 2048)))
    tokens[:, ::64] = torch.tensor([CLS, SEP, END, PAD]).repeat(8)
    p, samples = 0.2, np.arange(512)
    batch = masked(probability=p)({"tokens": tokens}, samples)
    inputs, count = batch.inputs["tokens"], 512 * (2048 - 32)
    chosen = hidden(batch, tokens)
    assert not chosen[:, ::64].any()
    replaced = inputs != tokens
    by_chance = 0.1 * p / 2994  # a random token may be the one that was there
    for found, share in (
        (~chosen, 1 - p),
        (chosen & (inputs == MASK), 0.8 * p),
        (chosen & replaced & (inputs != MASK), 0.1 * p - by_chance),
        (chosen & ~replaced, 0.1 * p + by_chance),
    ):
        seen = found.sum().item() - (512 * 32 if found[0, 0] else 0)
        assert abs(seen - share * count) < 4 * sqrt(count * share * (1 - share)), share
    assert (replaced <= chosen).all() and torch.equal(inputs[~chosen], tokens[~chosen])
    # the others are any ordinary token, no special one, all equally often
    others = inputs[replaced & (inputs != MASK)].numpy()
    assert not np.isin(others, list(SPECIAL.special)).any() and others.max() < 2999
    by_third = np.bincount((others - 5) * 3 // 2994, minlength=3)
    assert (abs(by_third - len(others) / 3) < 4 * sqrt(len(others) * 2 / 9)).all()
    # every place of a sample is as likely as any other
    by_half = chosen[:, :1024].sum().item() / chosen.sum().item()
    assert by_half == pytest.approx(0.5, abs=0.01)


def test_all_by_the_mask_token() -> None:
    tokens = torch.arange(100, 1124).view(4, 256)
    batch = masked(mask_all=True)({"tokens": tokens}, np.arange(4))
    chosen = hidden(batch, tokens)
    assert (batch.inputs["tokens"][chosen] == MASK).all() and (batch.inputs["tokens"][~chosen] != MASK).all()
    usual = masked()({"tokens": tokens}, np.arange(4))
    assert torch.equal(hidden(usual, tokens), chosen), "the choice of places is the same"


def some_items(rows: int, length: int, seed: int) -> dict[str, Tensor]:
    """Samples with special tokens between others, and padding at the end of each."""
    draw = np.random.default_rng(seed)
    tokens = np.where(draw.random((rows, length)) < 0.2, draw.integers(0, 5, (rows, length)), 0)
    tokens = np.where(tokens > 0, tokens, draw.integers(5, 3000, (rows, length)))
    padding = np.arange(length) >= draw.integers(0, length + 1, rows)[:, None]
    segments = np.where(padding, -1, np.arange(length) // 5)
    return {"tokens": torch.from_numpy(tokens), "segments": torch.from_numpy(segments)}


@settings(max_examples=300)
@given(
    rows=st.integers(1, 3), length=st.integers(1, 40), items=st.integers(0, 2**32), seed=st.integers(0, 2**40),
    start=st.floats(1e-3, 0.999), end=st.floats(1e-3, 0.999), ramp=st.integers(1, 100), first=st.integers(0, 120),
    validates=st.booleans(), mask_all=st.booleans(), reset=st.booleans(),
)  # fmt: skip
def test_any_batch(
    rows: int, length: int, items: int, seed: int, start: float, end: float, ramp: int, first: int, validates: bool,
    mask_all: bool, reset: bool,
) -> None:  # fmt: skip
    probability = start if start == end else {"start": start, "end": end, "samples": ramp}
    keys = {"probability": probability, "mask_all": mask_all, "reset_attention": reset}
    given, samples = some_items(rows, length, items), np.arange(first, first + rows)
    config = MaskedLMConfig.model_validate({"name": "masked_lm", **keys})
    picking, whole = (
        each.for_validation if validates else each
        for each in (masked(seed, **keys, masked_logits_only=only) for only in (True, False))
    )
    batch, full = picking(given, samples), whole(given, samples)
    assert tuple(batch.inputs) == config.inputs.names
    assert batch.inputs["picked"].shape == (rows, ceil(length * max(start, end)))
    assert batch.weights.dtype == full.weights.dtype == torch.float32
    assert all(each.dtype == torch.int64 for each in (*batch.inputs.values(), batch.labels))

    tokens, segments = given["tokens"], given["segments"]
    chosen = hidden(batch, tokens)
    assert torch.equal(chosen, full.weights > 0) and torch.equal(batch.inputs["tokens"], full.inputs["tokens"])
    assert torch.equal(full.labels, tokens)
    assert torch.equal(batch.labels, tokens.gather(1, batch.inputs["picked"]))
    assert set(batch.weights.unique().tolist()) <= {0.0, 1.0} and batch.weights.sum() == full.weights.sum()
    may_be = ~torch.isin(tokens, torch.tensor(sorted(SPECIAL.special))) & (segments >= 0)
    assert (chosen <= may_be).all()
    assert torch.equal(batch.inputs["tokens"][~chosen], tokens[~chosen])
    for row in range(rows):
        way = 1.0 if validates else min(1.0, (first + row) / ramp)
        expected = (start + (end - start) * way) * may_be[row].sum().item()
        assert abs(chosen[row].sum().item() - expected) < 1 + 1e-9
        places = batch.inputs["picked"][row][batch.weights[row] > 0].tolist()
        assert places == sorted(set(places))


def test_a_sample_hides_the_same_tokens_on_every_layout() -> None:
    """A row depends on its number alone: not on the rows beside it, nor on what came before."""
    items = some_items(8, 64, 1)
    numbers = np.array([5, 2**40, 7, 0, 9, 11, 1, 3])
    make = masked()
    together = make(items, numbers)
    for row in range(8):
        alone = make({name: each[row : row + 1] for name, each in items.items()}, numbers[row : row + 1])
        for name, tensor in together.inputs.items():
            assert torch.equal(alone.inputs[name], tensor[row : row + 1])
        assert torch.equal(alone.labels, together.labels[row : row + 1])


def test_another_epoch_or_seed_hides_others_and_a_validation_the_same() -> None:
    tokens = torch.arange(100, 612).view(1, 512)
    items = {"tokens": tokens}

    def places(make: Objective, number: int) -> set[int]:
        return set(hidden(make(items, np.array([number])), tokens)[0].nonzero().flatten().tolist())

    first = places(masked(), 3)
    assert places(masked(), 3) == first == places(masked().for_validation, 3)
    for other in (places(masked(), 1003), places(masked(seed=8), 3)):
        assert len(first & other) < 0.4 * len(first), "of two choices of 15 % some 15 % are alike"


def test_the_choice_is_never_changed() -> None:
    """Golden values: a run that is resumed by a later version must go on with the same tokens."""
    tokens = torch.arange(10, 42).view(2, 16)
    batch = masked(probability=0.3)({"tokens": tokens}, np.array([0, 12345]))
    assert batch.inputs["picked"].tolist() == [[2, 8, 10, 11, 14], [0, 6, 8, 14, 15]]
    assert batch.inputs["tokens"].tolist() == [
        [10, 11, 12, 13, 14, 15, 16, 17, 3, 19, 3, 3, 22, 23, 3, 25],
        [3, 27, 28, 29, 30, 31, 3, 33, 34, 35, 36, 37, 38, 39, 3, 3],
    ]
    assert batch.weights.tolist() == [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]]


def test_the_probability_follows_the_samples_number() -> None:
    tokens = torch.full((5, 1000), 100)
    make = masked(probability={"start": 0.4, "end": 0.1, "samples": 1000})
    counts = (make({"tokens": tokens}, np.array([0, 500, 999, 1000, 10**12])).weights > 0).sum(1).tolist()
    assert [abs(count - wanted) <= 1 for count, wanted in zip(counts, [400, 250, 100, 100, 100], strict=True)] == [
        True
    ] * 5
    validated = make.for_validation({"tokens": tokens}, np.array([0, 1, 2, 3, 4]))
    assert set((validated.weights > 0).sum(1).tolist()) <= {100, 101}
    assert validated.inputs["picked"].shape == (5, 400), "a pipeline's messages have one size"
    rounded = masked(probability={"start": 0.1, "end": 0.3, "samples": 10})  # 0.1 + (0.3 - 0.1) is above 0.3
    for number in range(100):
        many = rounded({"tokens": torch.full((1, 10), 100)}, np.array([10 + number]))
        assert many.weights.sum() == 3


def test_no_more_are_hidden_than_are_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 + (1 - 2**-53) is 4: one token would be hidden and never predicted."""
    monkeypatch.setattr(masked_lm, "_fractions", lambda numbers: np.full(numbers.shape, 1 - 2.0**-53))
    batch = masked(probability=0.3, mask_all=True)({"tokens": torch.full((1, 10), 100)}, np.array([0]))
    assert batch.weights.shape == (1, 3) and (batch.inputs["tokens"] == MASK).sum() == 3


def test_documents_apart_have_positions_of_their_own() -> None:
    tokens = torch.tensor([[CLS, 50, 51, SEP, CLS, 60, SEP, PAD]])
    items = {"tokens": tokens, "segments": torch.tensor([[0, 0, 0, 0, 1, 1, 1, -1]])}
    batch = masked(reset_attention=True)(items, np.array([0]))
    assert batch.inputs["positions"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0]]
    assert batch.inputs["documents"].tolist() == [[0, 0, 0, 0, 4, 4, 4, 7]]


def test_of_records_the_answers_alone_are_hidden() -> None:
    tokens = torch.arange(100, 140).view(2, 20)
    answers = (torch.arange(20) >= 10).long().expand(2, -1)
    chosen = hidden(masked(probability=0.5)({"tokens": tokens, "answers": answers}, np.arange(2)), tokens)
    assert not chosen[:, :10].any() and chosen[:, 10:].sum(1).tolist() == [5, 5]
