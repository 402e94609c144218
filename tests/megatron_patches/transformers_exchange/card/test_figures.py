"""Figures of a comparison, their thresholds, and the card that keeps them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_patches.transformers_exchange.card.card import (
    Card,
    GreedyFigures,
    LogitFigures,
    MaskedFigures,
    NotEqual,
    PaddingFigures,
    TensorFigures,
    write_card,
)
from megatron_patches.transformers_exchange.card.greedy import compare_greedy
from megatron_patches.transformers_exchange.card.logits import KeptLogits, places_in_parts
from megatron_patches.transformers_exchange.card.masked import compare_masked, likeliest, masked_places, with_masks
from megatron_patches.transformers_exchange.card.padding import PaddedLogits, padded, short_texts


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


def filled(*likeliest: int) -> list[Tensor]:
    """Logits of one sample in two parts."""
    return list(after(*likeliest)[None].split(2, dim=1))


def test_masked_tokens_are_compared_one_by_one() -> None:
    theirs = likeliest(filled(3, 1, 4))
    assert theirs.tolist() == [[3, 1, 4]]
    assert compare_masked(theirs, filled(3, 1, 4)) == MaskedFigures(tokens=3, equal=3, near_ties=0)
    tie = filled(3, 1, 4)
    tie[1][0, 0, 2] = 1.0005
    assert compare_masked(theirs, tie) == MaskedFigures(tokens=3, equal=2, near_ties=1)
    with pytest.raises(
        NotEqual, match=r"1 of 3 are .* masked token 2 of sample 0 is 0 by the checkpoint and 1"
    ) as caught:
        compare_masked(theirs, filled(3, 0, 4))
    assert caught.value.check == "masked tokens"


def test_some_places_of_each_sample_are_masked() -> None:
    ids = torch.arange(40).view(2, 20)
    masked = with_masks(ids, 99)
    assert masked_places(ids).tolist() == [3, 10, 17]
    assert (masked == 99).nonzero()[:, 1].tolist() == [3, 10, 17] * 2
    assert ids.max() == 39
    assert masked_places(ids[:, :2]).tolist() == [1]


def test_padding_lies_where_the_mask_says() -> None:
    texts = short_texts(torch.arange(60).view(2, 30) + 1)
    assert [len(text) for text in texts] == [30, 15, 6]
    for side, first in (("right", 0), ("left", 24)):
        batch = padded(texts, side)  # type: ignore[arg-type]
        assert batch.mask.sum(1).tolist() == [30, 15, 6]
        assert batch.mask[2, first : first + 6].all()
        assert [row.tolist() for row in batch.unpadded(batch.ids)] == [text.tolist() for text in texts]


def said(ids: Tensor, mask: Tensor | None) -> Tensor:
    """Logits of a model that counts which tokens it sees, `[texts, positions, 2]`."""
    seen = ids if mask is None else ids * mask
    return torch.stack([ids.float(), seen.sum(1, keepdim=True).float().expand(ids.shape)], dim=-1)


def test_texts_in_a_batch_are_as_they_are_alone() -> None:
    texts = short_texts(torch.arange(60).view(2, 30))
    found = PaddedLogits(texts, said).compare(lambda text: said(text[None], None)[0])
    assert found == PaddingFigures(texts=3, tokens=51, sides=("right", "left"), largest_difference=0.0)


@pytest.mark.parametrize(
    ("theirs", "whose"),
    [(lambda ids, mask: said(ids, None), "the folder"), (lambda ids, mask: said(ids, mask) * torch.nan, "the folder"),
     (lambda ids, mask: said(ids, mask) + 1, "the checkpoint")],
)  # fmt: skip
def test_padding_that_is_seen_and_other_logits_fail(theirs: Any, whose: str) -> None:
    texts = short_texts(torch.arange(60).view(2, 30))
    with pytest.raises(NotEqual, match=rf"padded on its right differ by .* from those of the text alone by {whose}"):
        PaddedLogits(texts, theirs).compare(lambda text: said(text[None], None)[0])


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


def test_the_card_of_an_encoder_fits_a_terminal() -> None:
    figures = {
        "greedy": None, "masked": MaskedFigures(tokens=219, equal=218, near_ties=1),
        "padding": PaddingFigures(texts=3, tokens=55, sides=("right", "left"), largest_difference=9.9e-05),
    }  # fmt: skip
    told = card().model_copy(update=figures).told()
    assert max(map(len, told)) <= 80
    assert told[3:5] == [
        "masked   218 of 219 masked tokens are filled in alike (1 near ties)",
        "padding  right or left of 3 texts changes logits by 9.9e-05 at most",
    ]


def test_a_card_fits_a_terminal() -> None:
    told = card().told()
    assert max(map(len, told)) <= 80
    assert "argmax   equal at 511 of 512 positions (1 near ties)" in told
    assert "greedy   7 of 32 tokens equal after a prompt of 32, then a near tie (9.0e-04)" in told
