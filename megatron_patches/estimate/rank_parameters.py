"""How much of each parameter one rank holds. Torch-free."""

from megatron_patches.layout import Layout
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import ParameterRow, parameter_table
from megatron_patches.models.pipeline_partition import Stage, layer_of

# parameters that tensor-parallel ranks cut, by the end of their names; the others are whole on each
_CUT = (
    "tokens.table.weight", "logits.linear.weight", "query_key_value.linear.weight", "query_key_value.linear.bias",
    "query.linear.weight", "query.linear.bias", "output.linear.weight", "up.linear.weight", "up.linear.bias",
    "down.linear.weight",
)  # fmt: skip
_CUT_WITH_GROUPS = ("key_value.linear.weight", "key_value.linear.bias")
"""those of shared keys and values, whole where there are fewer groups than ranks"""


def stage_rows(model: ModelConfig, sequence_length: int, stage: Stage) -> list[ParameterRow]:
    """The parameters of one pipeline stage, whole; a tied embedding is in the first stage and in the last."""
    layers = set(stage.layers)
    return [row for row in parameter_table(model, sequence_length) if layer_of(row.name) in layers]


def elements_here(row: ParameterRow, model: ModelConfig, layout: Layout) -> int:
    """Numbers of a parameter on one tensor-parallel rank, before ZeRO shares them."""
    cut = row.name.endswith(_CUT)
    if row.name.endswith(_CUT_WITH_GROUPS):
        cut = row.name.endswith("query_key_value" + row.name.rsplit("key_value", 1)[1]) or model.groups >= layout.tensor
    return row.elements // layout.tensor if cut else row.elements
