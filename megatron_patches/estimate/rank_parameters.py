"""How much of the model one rank holds. Torch-free."""

from dataclasses import dataclass
from functools import lru_cache

from megatron_patches.models.pipeline_partition import Stage, plan_stages
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.name_patterns import is_trained
from megatron_patches.run.config import RunConfig
from megatron_patches.run.moment_table import moment_bytes

PERSISTENT_ELEMENTS = 100_000
"""parameters up to this size stay whole on each rank under ZeRO 3"""


@dataclass(frozen=True)
class StageParameters:
    """Of one rank of a pipeline stage, before ZeRO shares anything."""

    stage: Stage
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
    size = layout.tensor, layout.pipeline, config.lengths, config.training.precision
    if size not in known:
        stages = plan_stages(config.model, config.lengths, layout.pipeline, partition)
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
    here = [(row, row.elements_here(layout.tensor)) for row in config.parameters if row.layer in layers]
    trained = [(row, count) for row, count in here if is_trained(config.training, row.name)]
    return StageParameters(
        stage=stage,
        parameters=sum(count for _, count in here),
        trained=sum(count for _, count in trained),
        small=sum(count for _, count in here if count <= PERSISTENT_ELEMENTS),
        moments=sum(moment_bytes(config, row) * count // row.elements for row, count in trained),
    )
