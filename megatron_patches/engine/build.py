"""From a run's configuration to a running engine."""

import logging

import deepspeed
import torch
from deepspeed.pipe import PipelineModule

from megatron_patches.deepspeed_patches.no_shared_memory_op import skip_shared_memory_op
from megatron_patches.deepspeed_patches.versions import require_tested_deepspeed
from megatron_patches.engine.interface import Engine
from megatron_patches.engine.pipeline_engine import start_pipeline_engine
from megatron_patches.engine.plain_engine import start_plain_engine
from megatron_patches.engine.shared_weights import share_weights
from megatron_patches.models.blueprint import Blueprint, draw_up
from megatron_patches.models.build import PlainModel, build_pipeline, canonical_parameters, keep_as_built
from megatron_patches.models.layers.compilation import compile_blocks
from megatron_patches.objectives.loss import build_loss
from megatron_patches.objectives.measures import build_measures
from megatron_patches.optim.build import select_trainable
from megatron_patches.optim.loss_scale import LossScale
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.run.config import RunConfig
from megatron_patches.torch_patches.eager_optimizers import run_optimizers_eagerly
from megatron_patches.training.training_config import LossScaleConfig


def build_engine(config: RunConfig, groups: ProcessGroups, randomness: StepRandomness) -> Engine:
    """The engine of this run on this layout, with the run's initial weights."""
    require_tested_deepspeed()
    skip_shared_memory_op()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), auto_mpi_discovery=False, verbose=False)

    training = config.training
    blueprint = blueprint_of(config, groups, randomness)
    loss = build_loss(config.objective, groups)
    module: PlainModel | PipelineModule
    if groups.layout.pipeline == 1:
        shares = config.parallel.zero_stage == 3
        module = PlainModel(blueprint, share_weights(groups) if shares else keep_as_built)
    else:
        module = build_pipeline(blueprint, config.stages, loss)
    boundary = blueprint.calls[0].before
    select_trainable(training, canonical_parameters(module))
    # else it would have no optimizer; `check_layout` has refused such a run
    assert any(parameter.requires_grad for parameter in module.parameters()), "a pipeline stage has nothing to train"
    if compiles(config, groups):
        compile_blocks(module, training.compile_backend, training.compile_dynamic)
    else:
        run_optimizers_eagerly()
    scale = LossScale(training.loss_scale or LossScaleConfig(), groups.device) if training.precision == "fp16" else None
    zero_stage = groups.layout.zero_stage(config.parallel.zero_stage)
    rest = (build_measures(groups), groups, config.optimizer, zero_stage, training.micro_batch_size, scale)
    if isinstance(module, PlainModel):
        return start_plain_engine(module, loss, *rest, overlap_reduction=config.parallel.overlap_reduction)
    return start_pipeline_engine(module, boundary, *rest)


def blueprint_of(config: RunConfig, groups: ProcessGroups, randomness: StepRandomness) -> Blueprint:
    """The run's model on this rank, not built yet."""
    return draw_up(
        config.model,
        config.lengths,
        config.objective.inputs,
        groups,
        randomness,
        config.training.seed,
        config.training.recomputation,
    )


def compiles(config: RunConfig, groups: ProcessGroups) -> bool:
    """Whether blocks are compiled: unless the run says so, on a GPU, where ZeRO 3 does not exchange their weights."""
    if config.training.compile is not None:
        return config.training.compile
    return groups.device.type == "cuda" and config.parallel.zero_stage < 3
