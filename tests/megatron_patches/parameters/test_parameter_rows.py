"""What is derived of a parameter's row: its layer, its place in a stack, what tensor-parallel ranks hold of it."""

import pytest

from megatron_patches.models.pipeline_partition import PlannedLayers, Stage, partition_layers
from megatron_patches.parameters.info import ParameterInfo
from megatron_patches.parameters.row import Cut, layer_of, of_any_block, stack_of
from tests.small_rows import row


@pytest.mark.parametrize(
    ("name", "layer", "stack", "block"),
    [
        ("layers.3.attention.output.linear.weight", "layers.3", "layers", 3),
        ("layers.12", "layers.12", "layers", 12),
        ("encoder.layers.3.mlp.up.linear.weight", "encoder.layers.3", "encoder.layers", 3),
        ("vision.encoder.layers.0.norm.weight", "vision.encoder.layers.0", "vision.encoder.layers", 0),
        ("embedding.tokens.table.weight", "embedding", None, None),
        ("final_norm.weight", "final_norm", None, None),
        ("layers_of_another_kind.weight", "layers_of_another_kind", None, None),
        ("layers.norm.weight", "layers", None, None),
    ],
)
def test_a_name_says_its_layer(name: str, layer: str, stack: str | None, block: int | None) -> None:
    assert (layer_of(name), stack_of(layer)) == (layer, stack)
    described = row(name, (2, 2))
    assert (described.layer, described.stack, described.block) == (layer, stack, block)


def test_names_of_all_blocks() -> None:
    assert of_any_block("encoder.layers.3.mlp.bias") == "encoder.layers.*.mlp.bias"
    assert of_any_block("layers.0.layers.1.bias") == "layers.*.layers.1.bias"
    assert of_any_block("head.bias") == "head.bias"


def test_what_ranks_hold_of_a_row() -> None:
    plain = row("layers.0.mlp.up.linear.weight", (2, 12, 8), cut=Cut(1, "ffn_size"), fused=0)
    assert plain.slice_of(1, 3).box == ((0, 2), (4, 8), (0, 8)) and plain.elements_here(3) == 64
    assert plain.own_shape(plain.slice_of(1, 3)) == (8, 8)
    groups = row("layers.0.attention.key_value.linear.weight", (2, 2, 4, 8), cut=Cut(0, "groups", shared=True))
    assert [groups.cut_dimension(parts) for parts in (1, 2, 4)] == [0, 0, None]
    assert groups.elements_here(4) == groups.elements
    assert row("final_norm.bias", (8,), matrix=False).own_shape(plain.slice_of(0, 1)) == (192,)


@pytest.mark.parametrize(("parts", "sequence_parallel"), [(1, False), (2, False), (2, True), (4, True)])
def test_whose_gradient_is_a_part(parts: int, sequence_parallel: bool) -> None:
    """Of what every rank holds: norms of the stream see a rank's tokens, those of heads, and shared keys, its heads."""

    def partial(**rest: object) -> bool:
        info = ParameterInfo.on_rank(row("layers.0.x", (2, 8), **rest), 0, parts, sequence_parallel)
        return info.partial_gradient

    assert partial(partial="tokens") == sequence_parallel
    assert partial(partial="features") == (parts > 1)
    assert not partial()
    assert partial(partial="features", cut=Cut(0, "groups", shared=True)) == (parts > 2)


def test_cuts_that_divide() -> None:
    own, shared = Cut(0, "heads"), Cut(0, "groups", shared=True)
    assert [own.divides(6, parts) for parts in (1, 2, 4, 12)] == [True, True, False, False]
    assert [shared.divides(6, parts) for parts in (1, 2, 4, 12)] == [True, True, False, True]


def test_a_layer_that_leads_is_weighed_with_the_one_behind_it() -> None:
    """So that no stage ends between a shared table and the block that reads it."""
    leading = PlannedLayers(("encoder_bias", "encoder.layers.0"), blocks=1, tables=0, parameters=10)
    assert (leading.weight("transformer"), leading.weight("parameters")) == (1, 10)
    stage = Stage(("embedding", "encoder_bias", "encoder.layers.0", "encoder_bias", "encoder.layers.1"), 30)
    assert stage.blocks == 2 and stage.blocks_by_stack == {"encoder.layers": 2}
    assert partition_layers([0, 1, 1, 0], 2) == [0, 2, 4]
