"""Memory of a rank by part, from the configuration alone. Torch-free.

Where things lie under each ZeRO stage is what engine/optimizer_placement.py finds; what DeepSpeed adds for its messages
and its step is counted as `buffers`. Tests hold each part to the sizes of live tensors.
"""

from dataclasses import dataclass
from functools import cached_property

from megatron_patches.dtypes import BYTES_OF_PRECISION
from megatron_patches.estimate.activations import activations
from megatron_patches.estimate.rank_parameters import StageParameters, stage_parameters
from megatron_patches.models.interface.architecture import Activations, Device, Recomputation
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig

FP32 = BYTES_OF_PRECISION["fp32"]
BUCKET_ELEMENTS = 50_000_000
"""as engine/deepspeed_engine.py tells DeepSpeed: gradients in one message under ZeRO 1 to 3"""
WHOLE_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's own bound of a message under ZeRO 0"""
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
    """Every pipeline stage, first to last."""

    stages: tuple[StageMemory, ...]

    @property
    def largest(self) -> StageMemory:
        """The stage that decides whether the run fits."""
        return max(self.stages, key=lambda stage: stage.total)


def estimate_memory(
    config: RunConfig, layout: Layout, kind: Recomputation | None = None, device: Device = "cuda"
) -> Memory:
    """Of a run on a layout; `kind` of recomputation in place of the run's own."""
    kept = activations(config, layout, kind, device=device)
    found = [_stage(config, layout, number, held, kept) for number, held in enumerate(stage_parameters(config, layout))]
    return Memory(tuple(found))


def _stage(config: RunConfig, layout: Layout, number: int, held: StageParameters, kept: Activations) -> StageMemory:
    zero = layout.zero_stage(config.parallel.zero_stage)
    last = number == layout.pipeline - 1
    micro_batches = layout.micro_batches(config.training)
    sent = kept.stream if not last else 0  # a stage's output stays until its gradient has come back
    blocks = sum(count * kept.blocks[stack] for stack, count in held.stage.blocks_by_stack.items())
    gradients = FP32 * held.trained
    return StageMemory(
        stage=number,
        parameters=held.parameters,
        weights=_weights(config, layout, zero, held),
        gradients=gradients // layout.data if zero >= 2 else gradients,
        optimizer=_optimizer(config, layout, zero, held),
        buffers=_buffers(config, layout, zero, held),
        kept=blocks + (kept.stem if number == 0 else 0) + (kept.head if last else 0) + sent,
        in_flight=min(micro_batches, layout.pipeline - number),
        logits=kept.logits + kept.loss if last else 0,
        working=kept.repeated + kept.backward,
        constants=kept.constants,
        accumulates=micro_batches > 1,
        keeps_gradients=zero == 3 or (zero == 1 and layout.data > 1),
    )


def _weights(config: RunConfig, layout: Layout, zero: int, held: StageParameters) -> int:
    """All of them, or a share of all and the small ones whole beside it."""
    width = BYTES_OF_PRECISION[config.training.precision]
    if zero < 3:
        return width * held.parameters
    return width * (held.parameters // layout.data + (held.small if layout.data > 1 else 0))


def _optimizer(config: RunConfig, layout: Layout, zero: int, held: StageParameters) -> int:
    """Masters and moments; under ZeRO 1 to 3 there are masters in fp32 too, apart from the weights."""
    master = FP32 * held.trained if zero > 0 or config.training.precision != "fp32" else 0
    return (master + held.moments) // (layout.data if zero > 0 else 1)


def _buffers(config: RunConfig, layout: Layout, zero: int, held: StageParameters) -> int:
    """What lies beside gradients while they are reduced and stepped, and ZeRO 3's gathered weights."""
    if layout.data == 1 or zero == 1:
        return 0  # under ZeRO 1 gradients are reduced and stepped where they lie
    gradients = FP32 * held.trained
    if zero == 0:
        return min(gradients, FP32 * WHOLE_BUCKET_ELEMENTS)
    bucket, share = min(gradients, FP32 * BUCKET_ELEMENTS), gradients // layout.data
    if zero == 2:
        return max(2 * bucket, share)  # gradients wait in the bucket and are copied for the message
    gathered = BYTES_OF_PRECISION[config.training.precision] * min(held.parameters - held.small, GATHERED_ELEMENTS)
    # where one bucket takes all gradients, it is emptied after the backward pass, and no weight is gathered then
    return max(2 * bucket, gathered) if bucket == gradients else 2 * bucket + gathered
