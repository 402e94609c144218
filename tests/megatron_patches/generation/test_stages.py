"""Scores, texts and losses are the same however many ranks and stages hold the model, and no rank holds all of it."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.megatron_patches.generation.small_models import WINDOW, small_model, start
from tests.ranks import run_on_ranks

CASES: dict[str, tuple[dict[str, object], bool]] = {
    "gpt2": ({}, False),
    "rotary, grouped keys, two matrices": (
        {"position_embedding": "rotary", "key_value_heads": 2, "tied_head": False, "logit_soft_cap": 2.0},
        False,
    ),
    "alibi, prefixes": ({"position_embedding": "alibi", "embedding_norm": True}, True),
    "post-norm, prefixes, one key": (
        {"norm_placement": "post", "position_embedding": "rotary", "key_value_heads": 1, "tied_head": False},
        True,
    ),
}
"""switches, and whether the model reads prefixes"""
LAYOUTS = [(2, 2), (1, 4)]
"""sizes of tensor and pipeline: with ranks beside each other, and with a stage between others"""
BLOCKS = 5
"""they do not divide by the stages"""
REQUESTS = [(3, 5), (0, 4), (9, 1), (30, 6), (2, 0), (1, 40), (23, 1), (5, 5)]
"""ids of each context and continuation"""


@dataclass(frozen=True)
class Told:
    """What one model said."""

    scores: list[tuple[tuple[float, ...], bool]]
    texts: list[list[int]]
    sums: list[tuple[float, float]]
    """of each sample: weighted losses, and weights"""


def told_by(stages: int, names: list[str]) -> tuple[list[int], dict[str, Told]]:
    """Parameters that this rank holds of each model; on the first rank what each said, one after the other."""
    from megatron_patches.generation.model_ranks import ModelRanks

    groups = start(int(os.environ["WORLD_SIZE"]), stages)
    held, told = [], {}
    for name in names:
        switches, prefixes = CASES[name]
        model = small_model({"layers": BLOCKS, "vocab_multiple": 2, **switches}, groups, prefixes)
        held.append(sum(parameter.numel() for parameter in model._model.parameters()))
        ranks = ModelRanks(model, groups)
        if groups.rank:
            ranks.obey()
            continue
        told[name] = _told(ranks, prefixes)
        ranks.release()
    return held, told


def _told(ranks: Any, prefixes: bool) -> Told:
    import torch

    from megatron_patches.generation.generator import Generator, Prompt
    from megatron_patches.generation.sampling import Sampling
    from megatron_patches.generation.scorer import Scorer, ScoreRequest

    draw = torch.Generator().manual_seed(4)
    drawn = [[torch.randint(60, (size,), generator=draw).tolist() for size in each] for each in REQUESTS]
    scores = Scorer(ranks, WINDOW, 60, 100).score([ScoreRequest(*each) for each in drawn])
    texts: list[list[int]] = [[] for _ in range(4)]
    prompts = [Prompt(each, 0) for each in ([5], list(range(12)), list(range(30, 60)), [9, 8, 7])]
    Generator(ranks, WINDOW, 61, {7}).generate(
        prompts, 12, Sampling(0), lambda row, chosen: texts[row].append(chosen) is None
    )
    sums = [tuple(each) for batch in _samples(prefixes) for each in ranks.sample_sums(batch).tolist()]
    return Told([(each.log_probabilities, each.is_greedy) for each in scores], texts, sums)


def _samples(prefixes: bool) -> list[Any]:
    """Micro-batches of the objective, of 3 samples and of 2."""
    import numpy as np
    import torch

    from megatron_patches.objectives.build import build_objective
    from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig

    section = PrefixLMConfig(name="prefix_lm") if prefixes else CausalConfig(name="causal")
    objective, draw = build_objective(section, 3, 60), torch.Generator().manual_seed(9)
    items = torch.randint(60, (5, WINDOW + 1), generator=draw)
    return [objective({"tokens": items[part]}, part) for part in np.split(np.arange(5), [3])]


@cache
def on(tensor: int, stages: int) -> tuple[list[list[int]], dict[str, Told]]:
    """Parameters of each model by rank, and what the models said."""
    found = run_on_ranks(told_by, tensor * stages, stages, list(CASES))
    return [held for held, _ in found], found[0][1]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: "TP{} PP{}".format(*each))
@pytest.mark.parametrize("name", CASES)
def test_every_layout_says_the_same(layout: tuple[int, int], name: str) -> None:
    found, expected = on(*layout)[1][name], on(1, 1)[1][name]
    assert [(len(values), greedy) for values, greedy in found.scores] == [
        (len(values), greedy) for values, greedy in expected.scores
    ]
    pairs = zip(found.scores, expected.scores, strict=True)
    assert max(abs(a - b) for one, two in pairs for a, b in zip(one[0], two[0], strict=True)) <= 1e-5
    assert found.texts == expected.texts and sum(map(len, found.texts)) >= 24
    assert len(found.sums) == 5
    for (loss, weights), (its_loss, its_weights) in zip(found.sums, expected.sums, strict=True):
        assert loss == pytest.approx(its_loss, rel=1e-6) and weights == its_weights > 0


def test_no_rank_builds_more_than_its_stage() -> None:
    from data_tools.samples.lengths import SampleLengths
    from megatron_patches.models.gpt.gpt_config import GPTConfig
    from megatron_patches.models.pipeline_partition import plan_stages
    from tests.megatron_patches.generation.small_models import SIZES

    lengths = SampleLengths(WINDOW + 1, WINDOW, (("tokens", WINDOW),), WINDOW)
    held, whole, stages = on(1, 4)[0], on(1, 1)[0][0], 4
    for number, (switches, _) in enumerate(CASES.values()):
        model = GPTConfig.model_validate({**SIZES, "layers": BLOCKS, "vocab_multiple": 2, **switches})
        planned = [stage.parameters for stage in plan_stages(model, lengths, stages)]
        assert [of_rank[number] for of_rank in held] == planned
        twice = sum(planned) - whole[number]
        assert twice == (model.padded_vocab_size * model.hidden_size if model.tied_head else 0)
        assert max(planned) < 0.8 * whole[number]


def test_losses_are_those_of_torch() -> None:
    """Of the causal model, by the cross entropy of torch over the logits of all places."""
    for found, expected in zip(on(2, 2)[1]["gpt2"].sums, run_on_ranks(losses_of_torch, 1)[0], strict=True):
        assert found == (pytest.approx(expected, rel=1e-6), WINDOW)


def losses_of_torch() -> list[float]:
    import torch

    from megatron_patches.generation.model_on_rank import Texts

    model, found = small_model({"layers": BLOCKS, "vocab_multiple": 2}, start()), []
    for batch in _samples(prefixes=False):
        logits = model.all_logits(Texts(batch.inputs["tokens"].tolist(), [0] * len(batch.labels)))
        assert logits is not None
        losses = torch.nn.functional.cross_entropy(logits.double().transpose(1, 2), batch.labels, reduction="none")
        found += losses.sum(1).tolist()
    return found


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_stages_send_half_precision_unchanged(precision: str) -> None:
    first, other = run_on_ranks(sent_and_received, 2, precision)
    assert first == other


def sent_and_received(precision: str) -> list[Any]:
    """What the first stage sends, and what the second one has of it."""
    import torch

    from megatron_patches.generation.stage_messages import StageMessages

    groups = start(2, 2)
    messages = StageMessages(groups)
    hidden = torch.arange(24.0).view(2, 3, 4).to(getattr(torch, precision)).transpose(0, 1) / 7
    tensors = [hidden, torch.tensor([[1 << 40, -1]]), torch.tensor(0.5)]
    if groups.rank == 0:
        messages.send_on(tensors)
    else:
        tensors = messages.take_over(3)
    return [(str(each.dtype), each.shape, each.double().tolist()) for each in tensors]
