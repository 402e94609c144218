"""Scores: the same alone and in any company, and what a softmax over the model's logits says."""

import os

import pytest

from tests.megatron_patches.generation.small_models import WINDOW, small_model, start
from tests.ranks import run_on_ranks

END = 60
Scored = list[tuple[tuple[float, ...], bool]]


def scored(prefixes: bool) -> tuple[Scored, Scored, Scored, Scored]:
    """Requests of many lengths: in batches, one by one, in reverse, and by the definition."""
    import torch

    from megatron_patches.generation.model_ranks import ModelRanks
    from megatron_patches.generation.scorer import Scorer, ScoreRequest

    groups = start(int(os.environ["WORLD_SIZE"]))
    switches = {"position_embedding": "rotary", "key_value_heads": 2, "vocab_multiple": 6}
    ranks = ModelRanks(small_model(switches, groups, prefixes), groups)
    if groups.rank:
        ranks.obey()
    draw = torch.Generator().manual_seed(4)
    sizes = [(3, 5), (0, 4), (9, 1), (30, 6), (2, 0), (1, 70), (0, 50), (23, 1), (24, 24), (5, 5), (4, 3)]
    requests = [ScoreRequest(*(torch.randint(60, (size,), generator=draw).tolist() for size in each)) for each in sizes]
    likeliest = ranks.all_logits(_texts([requests[0].context], [3]))[0, -1, :60].argmax().item()
    requests.append(ScoreRequest(requests[0].context, [likeliest]))

    def score(some: list[ScoreRequest], batch_tokens: int) -> Scored:
        found = Scorer(ranks, WINDOW, END, batch_tokens).score(some)
        return [(each.log_probabilities, each.is_greedy) for each in found]

    together = score(requests, 100)
    alone = [score([each], 1)[0] for each in requests]
    return together, alone, score(requests[::-1], 10_000)[::-1], [_by_definition(ranks, each) for each in requests]


def _texts(ids: list[list[int]], prefixes: list[int]):  # type: ignore[no-untyped-def]
    from megatron_patches.generation.model_on_rank import Texts

    return Texts(ids, prefixes)


def _by_definition(ranks, request):  # type: ignore[no-untyped-def]
    """Every id by the logits after what is in front of it: windows as the scorer's module states them."""
    context = list(request.context) or [END]
    ids = [*context, *request.continuation]
    values, greedy = [], True
    for place in range(len(context), len(ids)):
        stretch = (place - len(context)) // WINDOW
        end = min(len(ids), len(context) + (stretch + 1) * WINDOW)
        first = max(0, end - 1 - WINDOW)
        seen = ids[first : end - 1]
        logits = ranks.all_logits(_texts([seen], [max(0, min(len(seen), len(context) - first))]))[0, place - first - 1]
        values.append(logits.log_softmax(-1)[ids[place]].item())
        greedy &= logits[:61].argmax().item() == ids[place]
    return tuple(values), greedy


def differ(some: Scored, others: Scored) -> float:
    """The largest difference of a log-probability; the rest must be the same."""
    assert [(len(each[0]), each[1]) for each in some] == [(len(each[0]), each[1]) for each in others]
    pairs = [pair for one, two in zip(some, others, strict=True) for pair in zip(one[0], two[0], strict=True)]
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_score_is_its_own(prefixes: bool) -> None:
    together, alone, backwards, expected = run_on_ranks(scored, 1, prefixes)[0]
    assert len(together) == 12 and sum(len(each[0]) for each in together) == 170
    assert differ(together, alone) <= 1e-5
    assert differ(together, backwards) <= 1e-5
    assert differ(together, expected) <= 1e-5
    assert together[4] == ((), True) and together[-1][1] and not together[0][1]


def first_of_two(prefixes: bool) -> tuple[Scored, ...] | None:
    """The first rank's, which ends the other one by ending."""
    try:
        return scored(prefixes)
    except RuntimeError:
        assert os.environ["RANK"] == "1"
        return None


def test_ranks_score_as_one(small: None = None) -> None:
    first, _ = run_on_ranks(first_of_two, 2, False)
    assert first is not None and differ(first[0], run_on_ranks(scored, 1, False)[0][0]) <= 1e-5


def test_a_text_begins_after_the_end_of_a_document() -> None:
    whole, request, refused = run_on_ranks(texts_and_requests, 1)[0]
    assert whole == request
    assert "no end-of-document token" in refused


def texts_and_requests() -> tuple[object, object, str]:
    from megatron_patches.errors import Refused
    from megatron_patches.generation.model_ranks import ModelRanks
    from megatron_patches.generation.scorer import Scorer, ScoreRequest

    groups = start()
    ranks = ModelRanks(small_model({}, groups), groups)
    text = list(range(40))
    whole = Scorer(ranks, WINDOW, END).score_texts([text])[0]
    request = Scorer(ranks, WINDOW, None).score([ScoreRequest([END], text)])[0]
    assert whole.count == 40 and abs(whole.log_probability - sum(whole.log_probabilities)) < 1e-9
    with pytest.raises(Refused) as refused:
        Scorer(ranks, WINDOW, None).score_texts([text])
    for context, continuation in (([1, 61], [2]), ([1], [2, -1])):  # 61 ids stand for text
        with pytest.raises(Refused, match=r"request 1 has the id (61|-1), and the tokenizer's are 0 to 60"):
            Scorer(ranks, WINDOW, END).score([ScoreRequest([1], [2]), ScoreRequest(context, continuation)])
    return whole, request, str(refused.value)
