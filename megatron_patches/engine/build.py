"""From a run's configuration to a running engine."""

import logging

import deepspeed
import torch

from megatron_patches.config import RunConfig
from megatron_patches.deepspeed_patches.no_shared_memory_op import skip_shared_memory_op
from megatron_patches.deepspeed_patches.versions import require_tested_deepspeed
from megatron_patches.engine.interface import Engine
from megatron_patches.engine.pipeline_engine import PipelineEngine
from megatron_patches.engine.plain_engine import PlainEngine
from megatron_patches.models.build import build_pipeline, build_plain
from megatron_patches.models.gpt import gpt_layers
from megatron_patches.objectives.loss import weighted_loss
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_engine(config: RunConfig, groups: ProcessGroups, randomness: StepRandomness) -> Engine:
    """The engine of this run on this layout, with the run's initial weights."""
    require_tested_deepspeed()
    skip_shared_memory_op()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), auto_mpi_discovery=False, verbose=False)

    training = config.training
    micro_batches = groups.layout.micro_batches(training)
    specs = gpt_layers(config.model, config.data.sequence_length, groups, randomness)
    rest = (groups, config.optimizer, config.parallel.zero_stage, training.micro_batch_size, micro_batches)
    if groups.layout.pipeline == 1:
        return PlainEngine(build_plain(specs, training.seed), *rest)
    return PipelineEngine(lambda: build_pipeline(specs, groups, weighted_loss, training.seed), *rest)
