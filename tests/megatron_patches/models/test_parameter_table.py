"""The table of parameters against the models that are built."""

import itertools
from collections.abc import Iterator

import pytest

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.parallel.layout import Layout
from tests.ranks import run_on_ranks
from tests.small_model import causal_lengths

SIZES = {"layers": 2, "hidden_size": 16, "attention_heads": 4, "ffn_size": 24, "vocab_size": 30, "vocab_multiple": 4}
SWITCHES: dict[str, list[dict[str, object]]] = {
    "positions": [{"position_embedding": name} for name in ("learned", "rotary", "alibi", "none")],
    "heads": [{}, {"key_value_heads": 2}, {"key_value_heads": 1, "query_key_norm": True}],
    "mlp": [{}, {"activation": "swiglu", "mlp_bias": False}],
    "norms": [{}, {"norm_placement": "post"}, {"norm": "rmsnorm", "norm_bias": False, "embedding_norm": True}],
    "rest": [{}, {"tied_head": False, "attention_bias": False}, {"embedding_norm": True, "query_key_norm": True}],
}


def combinations() -> list[GPTConfig]:
    """Every value of every switch beside every other: 216 models."""
    chosen = itertools.product(*SWITCHES.values())
    return [GPTConfig.model_validate(SIZES | {k: v for part in parts for k, v in part.items()}) for parts in chosen]


Built = list[tuple[str, tuple[int, ...], int, bool]]


def built_parameters(layout: Layout, models: list[GPTConfig]) -> list[Built]:
    """(name, global shape, elements here, whether tensor-parallel ranks replicate it) of each model's parameters."""
    import torch

    from megatron_patches.models.build import canonical_parameters
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.info import info_of
    from tests.small_model import plain_model

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)

    def one(model: GPTConfig) -> Iterator[tuple[str, tuple[int, ...], int, bool]]:
        plain = plain_model(model, 8, groups, randomness)
        for name, parameter in canonical_parameters(plain).items():
            info = info_of(parameter)
            yield name, info.slice.global_shape, parameter.numel(), info.tensor_replicated

    return [list(one(model)) for model in models]


@pytest.mark.parametrize("layout", [Layout(1, 1, 1), Layout(2, 1, 1)])
def test_names_and_shapes_are_those_of_the_built_model(layout: Layout) -> None:
    models = combinations()[:: layout.tensor**2]
    ranks = run_on_ranks(built_parameters, layout.world_size, layout, models)
    for model, *on_ranks in zip(models, *ranks, strict=True):
        table = [(row.name, row.shape) for row in parameter_table(model, causal_lengths(8))]
        for built in on_ranks:
            assert [(name, shape) for name, shape, *_ in built] == table, model
        elements = sum(here for _, _, here, _ in on_ranks[0])
        elements += sum(here for built in on_ranks[1:] for _, _, here, replicated in built if not replicated)
        assert elements == sum(row.elements for row in parameter_table(model, causal_lengths(8)))
