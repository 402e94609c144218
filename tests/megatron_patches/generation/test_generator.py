"""Ids that follow prompts: each prompt's own, whatever is beside it, and by the window's rule."""

import os
from typing import Any

import pytest
import torch

from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.generation.sampling import Sampling, choose
from tests.megatron_patches.generation.small_models import WINDOW, small_model, start
from tests.ranks import run_on_ranks

LENGTHS = (5, 1, WINDOW, 12, 40)
TOKENS = 45
SWITCHES: dict[str, object] = {"position_embedding": "alibi", "key_value_heads": 2, "vocab_multiple": 8}
Ids = list[list[int]]


def written(prefixes: bool, temperature: float) -> tuple[Ids, Ids, Ids, Ids]:
    """What follows five prompts: together, alone, with others in another order, and by reading again for each id."""
    from megatron_patches.generation.generator import Generator, Prompt
    from megatron_patches.generation.model_on_rank import Texts
    from megatron_patches.generation.model_ranks import ModelRanks

    groups = start(int(os.environ["WORLD_SIZE"]))
    ranks = ModelRanks(small_model(SWITCHES, groups, prefixes), groups)
    if groups.rank:
        ranks.obey()
    draw = torch.Generator().manual_seed(5)
    prompts = [
        Prompt(torch.randint(61, (length,), generator=draw).tolist(), seed) for seed, length in enumerate(LENGTHS)
    ]
    generator, sampling = Generator(ranks, WINDOW, 61, {7}), Sampling(temperature, top_k=20)

    def ids(some: list[Prompt]) -> Ids:
        heard: Ids = [[] for _ in some]
        endings = generator.generate(some, TOKENS, sampling, lambda row, chosen: heard[row].append(chosen) is None)
        assert [ending == "length" for ending in endings] == [len(each) == TOKENS for each in heard]
        return heard

    def by_definition(prompt: Prompt) -> list[int]:
        seen, prefix, found = list(prompt.ids[-WINDOW:]), min(len(prompt.ids), WINDOW), []
        own = torch.Generator().manual_seed(prompt.seed)
        while len(found) < TOKENS:
            logits = ranks.all_logits(Texts([seen], [prefix]))[:, -1, :61]
            (chosen,) = choose(logits, sampling, [own])
            if chosen == 7:
                break
            found.append(chosen)
            seen.append(chosen)
            if len(seen) > WINDOW:
                cut = len(seen) - (WINDOW - WINDOW // 4)
                seen, prefix = seen[cut:], max(0, prefix - cut)
        return found

    return (
        ids(prompts),
        [ids([each])[0] for each in prompts],
        ids(prompts[::-1])[::-1],
        list(map(by_definition, prompts)),
    )


@pytest.mark.parametrize(("prefixes", "temperature"), [(False, 1.0), (True, 1.0), (False, 0.0)])
def test_what_follows_a_prompt_is_its_own(prefixes: bool, temperature: float) -> None:
    together, alone, backwards, expected = run_on_ranks(written, 1, prefixes, temperature)[0]
    assert together == alone == backwards == expected
    assert len(set(map(tuple, together))) == len(LENGTHS)
    assert max(map(len, together)) == TOKENS


def first_of_two(*arguments: Any) -> tuple[Ids, ...] | None:
    """The first rank's, which ends the other one by ending."""
    try:
        return written(*arguments)
    except RuntimeError:
        assert os.environ["RANK"] == "1"
        return None


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ranks_write_as_one(temperature: float) -> None:
    first, _ = run_on_ranks(first_of_two, 2, False, temperature)
    assert first is not None and first[0] == run_on_ranks(written, 1, False, temperature)[0][0]


def test_a_listener_ends_its_own_text_alone() -> None:
    assert run_on_ranks(ended_by_listener, 1) == [([["stop", "length"], [3, 9]])]


def ended_by_listener() -> list[Any]:
    from megatron_patches.generation.generator import Generator, Prompt
    from megatron_patches.generation.model_ranks import ModelRanks

    groups = start()
    counts = [0, 0]

    def hear(row: int, chosen: int) -> bool:
        counts[row] += 1
        return row == 1 or counts[row] < 3

    generator = Generator(ModelRanks(small_model({}, groups), groups), WINDOW, 61, ())
    return [generator.generate([Prompt([1], 0), Prompt([2, 3], 0)], 9, Sampling(0), hear), counts]


def test_choosing() -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, -1.0])

    def draws(sampling: Sampling) -> list[int]:
        generator = torch.Generator().manual_seed(0)
        return choose(logits.expand(4000, 4), sampling, [generator] * 4000)

    assert set(draws(Sampling(temperature=0))) == {1}
    assert set(draws(Sampling(temperature=5.0, top_k=2))) == {1, 2}
    assert set(draws(Sampling(temperature=5.0, top_k=9))) == {0, 1, 2, 3}
    expected = (logits / 2).softmax(-1)
    shares = torch.bincount(torch.tensor(draws(Sampling(temperature=2.0)))) / 4000
    assert (shares - expected).abs().max() < 0.03  # four standard deviations
    # of shares 0.69, 0.25, 0.03, 0.01 the first is enough for 0.6, the second is needed for 0.7
    assert set(draws(Sampling(top_p=0.6))) == {1}
    assert set(draws(Sampling(top_p=0.7))) == {1, 2}
    assert set(draws(Sampling(top_p=1e-9))) == {1}
    assert draws(Sampling(top_p=1.0)) == draws(Sampling())
    assert set(draws(Sampling(temperature=5.0, top_k=2, top_p=0.99))) == {1, 2}


@pytest.mark.parametrize("temperature", [1e-45, 1e-30])
def test_the_coldest_temperatures_take_the_likeliest(temperature: float) -> None:
    logits = torch.tensor([[1.0, 40.0, 39.9, -3.0]])
    generator = [torch.Generator().manual_seed(0)]
    assert choose(logits, Sampling(temperature), generator) == [1]
    assert choose(logits, Sampling(temperature, top_k=9, top_p=0.5), generator) == [1]


def test_at_the_hottest_temperature_all_are_alike() -> None:
    logits = torch.tensor([[1.0, 40.0, 39.9, -3.0]]).expand(4000, 4)
    drawn = choose(logits, Sampling(1e300), [torch.Generator().manual_seed(0)] * 4000)
    assert torch.bincount(torch.tensor(drawn)).min() > 900


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(), Sampling(top_k=2), Sampling(top_p=0.5)])
def test_logits_that_are_no_numbers_are_refused(value: float, sampling: Sampling) -> None:
    logits = torch.tensor([[0.0, 1.0], [value, 1.0]])
    with pytest.raises(Damaged, match="diverged; name an earlier"):
        choose(logits, sampling, [torch.Generator()] * 2)


@pytest.mark.parametrize(
    "bad", [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_sampling_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(TrainyardError, match="give"):
        Sampling(**bad)
