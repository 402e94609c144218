"""Which layers a stage holds."""

import random
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.pipeline_partition import partition_layers, plan_stages
from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_model import causal_lengths
from tests.small_training import SmallData, overrides


def stage_sizes(weights: list[int], edges: list[int]) -> list[int]:
    return [sum(weights[start:stop]) for start, stop in pairwise(edges)]


def test_no_partition_is_better() -> None:
    """By trying all of them: the largest stage, then the sum of squares, and no stage without weight."""
    draw = random.Random(0)
    for _ in range(300):
        weights = [draw.choice([0, 1, 1, 2, 5, 9]) for _ in range(draw.randint(1, 9))]
        stages = draw.randint(1, max(1, sum(weight > 0 for weight in weights)))
        if not any(weights):
            continue
        every = [[0, *cuts, len(weights)] for cuts in combinations(range(1, len(weights)), stages - 1)]
        sizes = [stage_sizes(weights, edges) for edges in every]
        best = min((max(each), sum(size**2 for size in each)) for each in sizes if min(each) > 0)
        found = stage_sizes(weights, partition_layers(weights, stages))
        assert (max(found), sum(size**2 for size in found)) == best and min(found) > 0


def test_weightless_layers_stay_with_the_one_before_and_later_stages_hold_less() -> None:
    assert partition_layers([0, 0, 1, 1, 1, 1, 0, 0], 3) == [0, 4, 5, 8]


def test_bloom_has_six_layers_on_each_of_twelve_stages() -> None:
    """Le Scao et al. 2022, section 3.3: 70 blocks, embedding and head are 72 layers."""
    bloom = GPTConfig(
        layers=70, hidden_size=14336, attention_heads=112, ffn_size=57344, vocab_size=250680, vocab_multiple=512,
        position_embedding="alibi", embedding_norm=True,
    )  # fmt: skip
    stages = plan_stages(bloom, causal_lengths(2048), 12, "transformer|embedding")
    tables = [stage.layers.count("embedding") for stage in stages]
    assert [stage.blocks + count for stage, count in zip(stages, tables, strict=True)] == [6] * 12
    assert sum(tables) == 2, "a tied head is the embedding again"


def layers_of_this_stage(config: RunConfig) -> list[str]:
    """Layers with parameters that the running engine holds."""
    from tests.megatron_patches.engine.test_deepspeed_patches import engine_and_batch

    engine, _ = engine_and_batch(config)
    pipeline = engine.deepspeed.module
    held = pipeline._layer_specs[pipeline._local_start : pipeline._local_stop]
    names = [spec.module_args[0].spec.name for spec in held if hasattr(spec, "module_args")]
    parameters = list(engine.parameters)
    return [name for name in names if any(each.startswith(f"{name}.") for each in parameters)]


@pytest.mark.parametrize("partition", ["transformer", "transformer|embedding", "parameters"])
def test_the_engine_holds_what_is_planned(partition: str, small_data: SmallData, tmp_path: Path) -> None:
    arguments = overrides(parallel__pipeline=3, parallel__pipeline_partition=partition, parallel__zero_stage=0)
    config = small_data.run(tmp_path, arguments)
    stages = config.stages
    assert run_on_ranks(layers_of_this_stage, 3, config) == [list(stage.layers) for stage in stages]
    blocks = {"transformer": [2, 1, 1], "transformer|embedding": [1, 2, 1], "parameters": [1, 2, 1]}
    assert [stage.blocks for stage in stages] == blocks[partition]
