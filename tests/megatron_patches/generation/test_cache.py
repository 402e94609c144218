"""Keys and values that are kept change no logits, whatever the model's switches and the texts beside."""

from functools import cache
from typing import Any

import pytest

from tests.megatron_patches.generation.small_models import WINDOW, small_model, start
from tests.ranks import run_on_ranks

ROTARY = {"name": "rotary", "fraction": 0.5, "pairs": "interleaved"}
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "rotary": {"position_embedding": "rotary"},
    "half of it, interleaved": {"position_embedding": ROTARY},
    "alibi": {"position_embedding": "alibi"},
    "no positions": {"position_embedding": "none"},
    "post-norm": {"norm_placement": "post"},
    "parallel residual": {"parallel_residual": True, "position_embedding": "rotary"},
    "grouped keys": {"key_value_heads": 2, "position_embedding": "rotary"},
    "one key": {"key_value_heads": 1, "position_embedding": "alibi"},
    "normed queries": {"query_key_norm": True},
    "embedding norm": {"embedding_norm": True, "position_embedding": "alibi"},
    "rmsnorm": {"norm": "rmsnorm", "norm_bias": False, "activation": "swiglu", "tied_head": False},
    "no biases": {"norm_bias": False, "attention_bias": False, "mlp_bias": False},
    "padded vocabulary": {"vocab_multiple": 16, "logit_soft_cap": 2.0},
    "dropout": {"hidden_dropout": 0.5, "attention_dropout": 0.5, "embedding_dropout": 0.5},
}
WITH_PREFIX = [name for name in CASES if name != "no positions"]  # which a run refuses


MOVES: list[tuple[str, list[int] | None]] = [
    ("read", None), ("follow", None), ("follow", None), ("follow", [1, 2]), ("read", [0]), ("select", [1, 0, 2]),
    ("follow", None), ("select", [0, 1]), ("follow", None), ("follow", [0]), ("read", [1]), ("select", [1]),
    ("follow", None), ("follow", None),
]  # fmt: skip
"""what is done with rows of the cache; None: all of them"""


def difference(cases: dict[str, dict[str, Any]], prefixes: bool) -> dict[str, float]:
    """Of each model the largest difference of logits with and without a cache, over texts of different lengths."""
    import os

    import torch

    groups = start(int(os.environ["WORLD_SIZE"]))
    draw = torch.Generator().manual_seed(2)
    texts = [torch.randint(61, (length,), generator=draw).tolist() for length in (14, WINDOW, 9)]
    return {name: _difference(small_model(each, groups, prefixes), texts) for name, each in cases.items()}


def _difference(model: Any, texts: list[list[int]]) -> float:
    import torch

    from megatron_patches.generation.model_on_rank import Texts

    whole, lengths, rows = [6, 10, 1], [6, 10, 1], [0, 1, 2]
    expected = [model.all_logits(Texts([text], [prefix]))[0] for text, prefix in zip(texts, whole, strict=True)]
    assert torch.cat(expected).std() > 0.05, "these logits say nothing"
    model.begin(3, WINDOW)
    differences = []
    for move, places in MOVES:
        if move == "select":
            model.select(places)
            rows = [rows[place] for place in places or ()]
            continue
        chosen = rows if places is None else [rows[place] for place in places]
        if move == "follow":
            ids = [texts[each][lengths[each]] for each in chosen]
            got = model.follow(places, ids, [lengths[each] for each in chosen])
            lengths = [length + (each in chosen) for each, length in enumerate(lengths)]
        else:
            read = [texts[each][: lengths[each]] for each in chosen]
            got = model.read(places, Texts(read, [whole[each] for each in chosen]))
        differences += [logits - expected[each][lengths[each] - 1] for logits, each in zip(got, chosen, strict=True)]
    assert lengths == [12, 16, 5]
    return torch.stack(differences).abs().max().item()


@cache
def differences(prefixes: bool) -> dict[str, float]:
    cases = {name: switches for name, switches in CASES.items() if not prefixes or name in WITH_PREFIX}
    return run_on_ranks(difference, 1, cases, prefixes)[0]


@pytest.mark.parametrize("name", CASES)
def test_logits_with_a_cache_are_those_of_reading_again(name: str) -> None:
    assert differences(prefixes=False)[name] <= 1e-5


@pytest.mark.parametrize("name", WITH_PREFIX)
def test_a_prompt_that_sees_itself_whole_is_kept_so(name: str) -> None:
    assert differences(prefixes=True)[name] <= 1e-5


def test_ranks_keep_their_own_heads() -> None:
    cases = {name: CASES[name] for name in ("gpt2", "alibi", "grouped keys", "one key", "rmsnorm")}
    cases = {name: {**switches, "vocab_multiple": 2} for name, switches in cases.items()}
    for rank in run_on_ranks(difference, 2, cases, False):
        assert max(rank.values()) <= 1e-5
