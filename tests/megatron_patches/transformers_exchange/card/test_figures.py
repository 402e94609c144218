"""Figures of a comparison, their thresholds, and the card that keeps them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron_patches.transformers_exchange.card.card import (
    Card,
    GreedyFigures,
    LogitFigures,
    NotEqual,
    TensorFigures,
    write_card,
)
from megatron_patches.transformers_exchange.card.greedy import compare_greedy
from megatron_patches.transformers_exchange.card.logits import KeptLogits, places_in_parts


def logits() -> Tensor:
    """`[2, 70, 5]`, the likeliest token 1 or more before the next."""
    return torch.rand(2, 70, 5, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 0, 2, 0, 0])


def compared(theirs: Tensor, ours: Tensor) -> LogitFigures:
    """In parts of 67 and 3 places, of which the first is compared in three steps."""
    kept = KeptLogits(io.BytesIO())
    kept.keep(theirs.split(67, dim=1), 5)
    return kept.compare(ours.split(67, dim=1))


def test_equal_logits_have_no_difference() -> None:
    found = compared(logits(), logits())
    assert (found.positions, found.equal_argmax, found.near_ties, found.largest_difference) == (140, 140, 0, 0.0)
    assert found.largest_logit == float(logits().max())


def test_the_largest_difference_is_one_of_all_positions() -> None:
    ours = logits()
    ours[1, 68, 3] += 5e-5
    assert compared(logits(), ours).largest_difference == pytest.approx(5e-5, rel=0.01)


def test_a_difference_above_the_threshold_is_named_with_its_place() -> None:
    ours = logits()
    ours[0, 65, 3] += 2e-4
    ours[1, 3, 0] += 5e-4
    with pytest.raises(
        NotEqual, match=r"differ by 0.0005 at sample 1, position 3 .*first above it at sample 0, pos.* 65"
    ):
        compared(logits(), ours)


def test_a_near_tie_may_change_places() -> None:
    theirs, ours = logits(), logits()
    theirs[0, 7, :2], ours[0, 7, :2] = torch.tensor([9.0, 9.00005]), torch.tensor([9.00005, 9.0])
    found = compared(theirs, ours)
    assert (found.equal_argmax, found.near_ties) == (139, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("whose", [0, 1])
def test_what_is_no_number_fails_on_either_side(value: float, whose: int) -> None:
    pair = [logits(), logits()]
    pair[whose][1, 67, 4] = value
    with pytest.raises(NotEqual, match="NaN or infinite at sample 1, position 67"):
        compared(*pair)


def test_a_vocabulary_of_another_size_fails() -> None:
    with pytest.raises(NotEqual, match="has 5 of them, and ours 4"):
        KeptLogits(io.BytesIO()).keep([logits()], 4)


@pytest.mark.parametrize(("samples", "positions", "vocabulary"), [(1, 2048, 250_880), (128, 4, 50_257), (1, 512, 384)])
def test_logits_are_made_in_parts_that_fit_256_mb(samples: int, positions: int, vocabulary: int) -> None:
    parts = places_in_parts(torch.zeros(samples, positions, dtype=torch.int64), vocabulary)
    assert torch.cat(parts).tolist() == list(range(positions))
    assert max(4 * samples * len(part) * vocabulary for part in parts) <= 2**28
    assert (len(parts) == 1) == (4 * samples * positions * vocabulary <= 2**28)


def after(*likeliest: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(likeliest), 5).float()


def test_greedy_tokens_are_compared_up_to_a_near_tie() -> None:
    generated = torch.tensor([3, 1, 4])
    assert compare_greedy(after(3, 1, 4), generated, 2) == GreedyFigures(prompt=2, tokens=3, equal=3, near_tie=None)
    tie = after(3, 1, 4)
    tie[1, 2] = 1.0005
    found = compare_greedy(tie, generated, 2)
    assert found.equal == 1
    assert found.near_tie == pytest.approx(5e-4, rel=0.01)


def test_another_greedy_token_fails() -> None:
    with pytest.raises(
        NotEqual, match=r"token 2 of 3 is 0 by the checkpoint and 1 by the folder, .* 1 apart"
    ) as caught:
        compare_greedy(after(3, 0, 0), torch.tensor([3, 1, 4]), 2)
    assert caught.value.check == "greedy"


def card() -> Card:
    return Card(
        command="tools/export-hf x@1 y", date="2026-11-29T21:00:00+00:00", commit=None, versions={"torch": "2"},
        source="a" * 64, model_type="gpt2", class_name="GPT2LMHeadModel", text="validation samples of the run",
        text_sha256="b" * 64, by_block=False,
        tensors=TensorFigures(ours=148, theirs=148, filled=2, ignored=0, elements=6_700_000_000, dtype="BF16"),
        logits=LogitFigures(
            positions=512, vocabulary=250_880, largest_difference=9.9e-05, largest_logit=123.4, equal_argmax=511,
            near_ties=1,
        ),
        greedy=GreedyFigures(prompt=32, tokens=32, equal=7, near_tie=9e-4),
    )  # fmt: skip


def test_a_card_is_written_whole(tmp_path: Path) -> None:
    write_card(tmp_path, card())
    assert Card.model_validate_json((tmp_path / "card.json").read_bytes()) == card()


def test_a_card_fits_a_terminal() -> None:
    told = card().told()
    assert max(map(len, told)) <= 80
    assert "argmax   equal at 511 of 512 positions (1 near ties)" in told
    assert "greedy   7 of 32 tokens equal after a prompt of 32, then a near tie (9.0e-04)" in told
