"""Memory of a rank by part, from the configuration alone. Torch-free.

Where things lie under each ZeRO stage is what engine/optimizer_placement.py finds; what DeepSpeed adds for its messages
and its step is counted as `buffers`. Tests hold each part to the sizes of live tensors.
"""

from dataclasses import dataclass
from functools import cached_property

from megatron_patches.checkpoint.size import host_bytes, moment_bytes
from megatron_patches.config import RunConfig
from megatron_patches.configuration.name_patterns import is_trained
from megatron_patches.estimate.activations import BYTES, FP32, Activations, Device, Kind, activations
from megatron_patches.estimate.rank_parameters import elements_here, stage_rows
from megatron_patches.layout import Layout
from megatron_patches.models.parameter_table import ParameterRow
from megatron_patches.models.pipeline_partition import Stage, stages_of

BUCKET_ELEMENTS = 50_000_000
"""as engine/deepspeed_engine.py tells DeepSpeed: gradients in one message under ZeRO 1 to 3"""
WHOLE_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's own bound of a message under ZeRO 0"""
PERSISTENT_ELEMENTS = 100_000
"""parameters up to this size stay whole on each rank under ZeRO 3"""
GATHERED_ELEMENTS = 1_000_000_000
"""weights that ZeRO 3 leaves gathered, at most (DeepSpeed's stage3_max_live_parameters)"""


@dataclass(frozen=True)
class StageMemory:
    """Bytes of one rank of one pipeline stage, at their worst moment of a step."""

    stage: int
    parameters: int
    """numbers on this rank, before ZeRO shares them"""
    weights: int
    gradients: int
    optimizer: int
    """masters and moments"""
    buffers: int
    """messages of gradients, weights gathered by ZeRO 3, the flat gradient that is stepped"""
    kept: int
    """activations of one micro-batch that wait for its backward pass"""
    in_flight: int
    """micro-batches that wait at once"""
    logits: int
    """logits, their gradient, the loss's working space"""
    working: int
    """what one block's backward pass needs beside what is kept, recomputation included"""
    constants: int
    """tables that all layers share: ALiBi's bias"""
    accumulates: bool
    """whether gradients are there while activations are at their most"""
    keeps_gradients: bool
    """whether they have a place from step to step (ZeRO 3)"""

    @property
    def state(self) -> int:
        """What stays from step to step."""
        kept = self.gradients if self.keeps_gradients else 0
        return self.weights + self.optimizer + self.constants + kept

    @property
    def activations(self) -> int:
        """Of all micro-batches in flight, at the worse of two moments: the loss's, or a block's backward pass."""
        return self.kept * self.in_flight + max(self.logits, self.working)

    @cached_property
    def total(self) -> int:
        """The most at once. In a step of one micro-batch gradients come as activations go; buffers come last."""
        gradients = 0 if self.keeps_gradients else self.gradients
        if self.accumulates:
            return self.state + gradients + max(self.activations, self.buffers)
        return self.state + max(self.activations, gradients + self.buffers)


@dataclass(frozen=True)
class Memory:
    """Every stage, and what the host keeps."""

    stages: tuple[StageMemory, ...]
    host_copy: int
    """of the checkpoint, in the memory of each process's host"""

    @property
    def largest(self) -> StageMemory:
        """The stage that decides whether the run fits."""
        return max(self.stages, key=lambda stage: stage.total)


def estimate_memory(config: RunConfig, layout: Layout, kind: Kind | None = None, device: Device = "cuda") -> Memory:
    """Of a run on a layout; `kind` of recomputation in place of the run's own."""
    kept = activations(config, layout, kind, device=device)
    stages = stages_of(config)
    found = [_stage(config, layout, number, stage, kept) for number, stage in enumerate(stages)]
    return Memory(tuple(found), host_bytes(config, layout))


def _stage(config: RunConfig, layout: Layout, number: int, stage: Stage, kept: Activations) -> StageMemory:
    rows = stage_rows(config.model, config.data.sequence_length, stage)
    here = [(row, elements_here(row, config.model, layout)) for row in rows]
    trained = [(row, count) for row, count in here if is_trained(config.training, row.name)]
    parameters, gradients = sum(count for _, count in here), FP32 * sum(count for _, count in trained)
    weights = BYTES[config.training.precision] * parameters
    zero = layout.zero_stage(config.parallel.zero_stage)
    last = number == layout.pipeline - 1
    micro_batches = layout.micro_batches(config.training)
    in_flight = min(micro_batches, layout.pipeline - number)
    sent = kept.stream if not last else 0  # a stage's output stays until its gradient has come back
    return StageMemory(
        stage=number,
        parameters=parameters,
        weights=weights // layout.data + _persistent(config, here, layout) if zero == 3 else weights,
        gradients=gradients // layout.data if zero >= 2 else gradients,
        optimizer=sum(_optimizer_bytes(config, row, count, layout, zero) for row, count in trained),
        buffers=_buffers(config, layout, zero, gradients, here),
        kept=stage.blocks * kept.block + (kept.stem if number == 0 else 0) + (kept.head if last else 0) + sent,
        in_flight=in_flight,
        logits=kept.logits + kept.loss if last else 0,
        working=kept.repeated + kept.backward,
        constants=_constants(config, layout),
        accumulates=micro_batches > 1,
        keeps_gradients=zero == 3,
    )


def _optimizer_bytes(config: RunConfig, row: ParameterRow, count: int, layout: Layout, zero: int) -> int:
    """Masters and moments; under ZeRO 1 to 3 there are masters in fp32 too, apart from the weights."""
    master = FP32 if zero > 0 or config.training.precision != "fp32" else 0
    moments = moment_bytes(config, row) * count // row.elements
    return (master * count + moments) // (layout.data if zero > 0 else 1)


def _persistent(config: RunConfig, here: list[tuple[ParameterRow, int]], layout: Layout) -> int:
    """Small parameters, whole beside their shares."""
    width = BYTES[config.training.precision]
    return sum(width * count for _, count in here if count <= PERSISTENT_ELEMENTS and layout.data > 1)


def _buffers(
    config: RunConfig, layout: Layout, zero: int, gradients: int, here: list[tuple[ParameterRow, int]]
) -> int:
    """What lies beside gradients while they are reduced and stepped, and ZeRO 3's gathered weights."""
    if layout.data == 1:
        return 0
    if zero == 0:
        return min(gradients, FP32 * WHOLE_BUCKET_ELEMENTS)
    bucket, share = min(gradients, FP32 * BUCKET_ELEMENTS), gradients // layout.data
    if zero == 1:
        # bf16 has its share in a tensor of its own while buckets are reduced; fp32 makes it at the step
        return bucket + share if config.training.precision != "fp32" else max(bucket, share)
    if zero == 2:
        return max(2 * bucket, share)  # gradients wait in the bucket and are copied for the message
    large = sum(count for _, count in here if count > PERSISTENT_ELEMENTS)
    gathered = BYTES[config.training.precision] * min(large, GATHERED_ELEMENTS)
    # where one bucket takes all gradients, it is emptied after the backward pass, and no weight is gathered then
    return max(2 * bucket, gathered) if bucket == gradients else 2 * bucket + gathered


def _constants(config: RunConfig, layout: Layout) -> int:
    model, tokens = config.model, config.data.sequence_length
    if model.position_embedding.name != "alibi":
        return 0
    return model.attention_heads // layout.tensor * tokens**2 * BYTES[config.training.precision]
