"""Pseudo-perplexity: against one mask at a time, on one rank and on four, in windows; and its numbers by hand."""

import math
import os
from pathlib import Path
from typing import Any

import pytest

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.errors import Refused
from tests.megatron_patches.evaluation.encoders.tiny_encoder import TEXTS, encoder_run, save_encoder
from tests.megatron_patches.generation.small_models import start
from tests.ranks import run_on_ranks

UNKNOWN, CLS, SEP, MASK = 1, 2, 3, 4


def scored(folder: Path, stages: int) -> list[Any] | None:
    """What the ranks find for each text, and what one mask at a time gives, which reads every logit."""
    from megatron_patches.evaluation.encoders.pseudo_perplexity import score_texts
    from megatron_patches.generation.loaded_model import load_model, obey

    groups = start(int(os.environ["WORLD_SIZE"]), stages)
    if groups.rank:
        try:
            obey(groups)
        except RuntimeError:  # the first rank has ended
            return None
    model = load_model([folder], print, lambda: groups, groups.layout.tensor, stages, texts=False)
    return [score_texts(model, TEXTS, 3), [by_hand(model, text) for text in TEXTS]]


def by_hand(model: Any, text: str) -> tuple[float, int]:
    ids = model.tokenizer.encode(text)
    room = 6 if getattr(model.config.data.samples, "wrapped", False) else 8  # 8 tokens are seen at once
    total, count = 0.0, 0
    for place, label in enumerate(ids):
        if label == UNKNOWN:
            continue
        first = max(0, min(place - room // 2, len(ids) - room))
        window = ids[first : first + room]
        window[place - first] = MASK
        at = place - first
        if room == 6:
            window, at = [CLS, *window, SEP], at + 1
        total += float(model.logits(window)[at].double().log_softmax(-1)[label])
        count += 1
    return total, count


WRAPPED = {"data__samples": "{name: packs, wrapped: true}"}


@pytest.mark.parametrize(
    ("ranks", "stages", "switches"),
    [(1, 1, {"model__decoder_bias": "true"}), (1, 1, WRAPPED), (4, 2, {})],
    ids=["decoder bias", "wrapped", "four ranks"],
)
def test_one_mask_at_a_time(tmp_path: Path, ranks: int, stages: int, switches: dict[str, str]) -> None:
    folder = save_encoder(tmp_path, **switches)
    found, expected = run_on_ranks(scored, ranks, folder, stages)[0]
    assert [each.tokens for each in found] == [3, 13, 1, 3, 2]
    for each, (likelihood, tokens) in zip(found, expected, strict=True):
        assert each.likelihood == pytest.approx(likelihood, rel=1e-5)
        assert each.tokens == tokens
    assert found[0] == found[3]
    assert found[1].size == len(TEXTS[1])


def rows(texts: list[list[int]], window: int, wrapped: bool = False) -> list[Any]:
    from megatron_patches.evaluation.encoders.pseudo_perplexity import _rows
    from megatron_patches.evaluation.encoders.text_ends import TextEnds

    ends = TextEnds((CLS,), (SEP,)) if wrapped else TextEnds()
    return list(_rows(texts, MASK, frozenset((UNKNOWN, CLS, SEP, MASK)), window, ends))


def test_a_token_is_seen_in_the_middle_of_a_long_text() -> None:
    found = rows([[10, 11, 12, 13, 14, 15]], 3)
    assert [row.ids for row in found] == [
        [MASK, 11, 12], [10, MASK, 12], [11, MASK, 13], [12, MASK, 14], [13, MASK, 15], [13, 14, MASK]
    ]  # fmt: skip
    assert [row.label for row in found] == [10, 11, 12, 13, 14, 15]


def test_what_texts_begin_and_end_with_is_seen_and_never_hidden() -> None:
    found = rows([[10, UNKNOWN, 12]], 4, wrapped=True)
    assert [(row.ids, row.place) for row in found] == [([CLS, MASK, UNKNOWN, SEP], 1), ([CLS, UNKNOWN, MASK, SEP], 2)]


def test_texts_are_wrapped_as_in_training(tmp_path: Path) -> None:
    from megatron_patches.evaluation.encoders.text_ends import TextEnds, ends_in_training

    special, config = SpecialTokens(20, cls=CLS, sep=SEP), encoder_run(tmp_path, **WRAPPED)
    assert ends_in_training(config, special) == TextEnds((CLS,), (SEP,))
    assert ends_in_training(encoder_run(tmp_path), special) == TextEnds()
    with pytest.raises(Refused, match=r"data.samples.wrapped of tr901a.* needs a cls and a sep token"):
        ends_in_training(config, SpecialTokens(20))


def test_rows_of_one_length_are_read_together() -> None:
    from megatron_patches.evaluation.encoders.pseudo_perplexity import _batches

    batches = list(_batches(iter(rows([[10, 11, 12], [13], [14, 15, 16]], 8)), 4))
    assert [[row.text for row in batch] for batch in batches] == [[1], [0, 0, 0, 2], [2, 2]]
    assert all(len({len(row.ids) for row in batch}) == 1 for batch in batches)


def test_numbers_by_hand() -> None:
    from megatron_patches.evaluation.encoders.pseudo_perplexity import Scored, _metrics

    found = _metrics([Scored(-6.0, 2, 4), Scored(-3.0, 3, 8)])
    mean = 9 / 5
    # residuals of the ratio: 6 - 2 mean and 3 - 3 mean, whose squares are summed and divided by the tokens squared
    error = math.sqrt(2 * ((6 - 2 * mean) ** 2 + (3 - 3 * mean) ** 2)) / 5
    assert found["pseudo_perplexity"].value == pytest.approx(math.exp(mean))
    assert found["pseudo_perplexity"].standard_error == pytest.approx(math.exp(mean) * error)
    assert found["pseudo_bits_per_byte"].value == pytest.approx(9 / math.log(2) / 12)
    assert not found["pseudo_perplexity"].higher_is_better
    single = _metrics([Scored(-6.0, 2, 4)])
    assert single["pseudo_perplexity"].standard_error is None
    assert list(_metrics([Scored(-8000.0, 2, 4)])) == ["pseudo_bits_per_byte"]


def refused(folder: Path) -> dict[str, str]:
    """What a model of wrapped texts says of what cannot be asked."""
    from megatron_patches.errors import TrainyardError
    from megatron_patches.evaluation.encoders.pseudo_perplexity import score_texts
    from megatron_patches.generation.loaded_model import load_model

    groups, told = start(1, 1), {}
    for name, length, texts in (("unknown", None, ["sun", "zzz"]), ("empty", None, [""]), ("short", 2, ["sun"])):
        model = load_model([folder], print, lambda: groups, length=length, texts=False)
        try:
            score_texts(model, texts, 3)
        except TrainyardError as error:
            told[name] = str(error)
    return told


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    told = run_on_ranks(refused, 1, save_encoder(tmp_path, **WRAPPED))[0]
    assert told["unknown"].startswith("text 2 ('zzz') has no token that could be hidden")
    assert told["empty"].startswith("text 1 ('') has no token that could be hidden")
    assert told["short"] == "a length of 2 has no room for a token between cls and sep; give a longer --length"
