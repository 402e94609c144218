"""How much of the model one rank holds. Torch-free."""

from dataclasses import dataclass
from functools import lru_cache

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import ParameterRow, parameter_table
from megatron_patches.models.pipeline_partition import Stage, layer_of, plan_stages
from megatron_patches.optim.moment_table import moment_bytes
from megatron_patches.optim.name_patterns import is_trained
from megatron_patches.parallel.layout import Layout
from megatron_patches.run_config import RunConfig

PERSISTENT_ELEMENTS = 100_000
"""parameters up to this size stay whole on each rank under ZeRO 3"""

# parameters that tensor-parallel ranks cut, by the end of their names; the others are whole on each
_CUT = (
    "tokens.table.weight", "logits.linear.weight", ".query_key_value.linear.weight", ".query_key_value.linear.bias",
    ".query.linear.weight", ".query.linear.bias", ".output.linear.weight", ".up.linear.weight", ".up.linear.bias",
    ".down.linear.weight",
)  # fmt: skip
_CUT_WITH_GROUPS = (".key_value.linear.weight", ".key_value.linear.bias")
"""those of shared keys and values, whole where there are fewer groups than ranks"""


@dataclass(frozen=True)
class StageParameters:
    """Of one rank of a pipeline stage, before ZeRO shares anything."""

    blocks: int
    parameters: int
    trained: int
    small: int
    """those in parameters that ZeRO 3 leaves whole"""
    moments: int
    """bytes of the optimizer's moments"""


def stage_parameters(config: RunConfig, layout: Layout) -> tuple[StageParameters, ...]:
    """Of every pipeline stage, first to last.

    Remembered by what it depends on: thousands of layouts of a run have few tensor and pipeline sizes.
    """
    partition = config.parallel.pipeline_partition if layout.pipeline > 1 else "transformer"
    key = (config.model.model_dump_json(), config.optimizer.model_dump_json(), *_trained_by(config), partition)
    known = _remembered(key)
    size = layout.tensor, layout.pipeline, config.data.sequence_length, config.training.precision
    if size not in known:
        stages = plan_stages(config.model, config.data.sequence_length, layout.pipeline, partition)
        known[size] = tuple(_of_stage(config, layout, stage) for stage in stages)
    return known[size]


@lru_cache(maxsize=16)
def _remembered(key: tuple[object, ...]) -> dict[tuple[object, ...], tuple[StageParameters, ...]]:
    """What was found for one model so far."""
    return {}


def _trained_by(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(config.training.trainable), tuple(config.training.frozen)


def _of_stage(config: RunConfig, layout: Layout, stage: Stage) -> StageParameters:
    layers = set(stage.layers)
    rows = [row for row in parameter_table(config.model, config.data.sequence_length) if layer_of(row.name) in layers]
    here = [(row, elements_here(row, config.model, layout.tensor)) for row in rows]
    trained = [(row, count) for row, count in here if is_trained(config.training, row.name)]
    return StageParameters(
        blocks=stage.blocks,
        parameters=sum(count for _, count in here),
        trained=sum(count for _, count in trained),
        small=sum(count for _, count in here if count <= PERSISTENT_ELEMENTS),
        moments=sum(moment_bytes(config, row) * count // row.elements for row, count in trained),
    )


def elements_here(row: ParameterRow, model: ModelConfig, tensor: int) -> int:
    """Numbers of a parameter on one of so many tensor-parallel ranks."""
    cut = row.name.endswith(_CUT) or (row.name.endswith(_CUT_WITH_GROUPS) and model.groups >= tensor)
    return row.elements // tensor if cut else row.elements
