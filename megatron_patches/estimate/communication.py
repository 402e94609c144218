"""Bytes that one rank sends in a step, by axis and link. Torch-free.

Collectives are counted as rings send them: of a tensor of n bytes over r ranks each rank sends 2 (r - 1) / r n in an
all-reduce, (r - 1) / r n in an all-gather or a reduce-scatter.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from megatron_patches.dtypes import BYTES_OF_PRECISION
from megatron_patches.estimate.activations import activations
from megatron_patches.estimate.memory import FP32, StageMemory
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig

Axis = Literal["tensor", "pipeline", "data"]
Link = Literal["inside a node", "between nodes"]


@dataclass(frozen=True)
class Traffic:
    """What one rank sends along one axis in a step."""

    axis: Axis
    what: str
    bytes: int
    messages: int
    """collectives, or sends"""
    ranks: int
    link: Link


def estimate_traffic(config: RunConfig, layout: Layout, stage: StageMemory, gpus_per_node: int) -> list[Traffic]:
    """Of a rank of the stage that has most to do; axes of one rank are left out."""
    found = [_tensor(config, layout, gpus_per_node), _pipeline(config, layout, gpus_per_node)]
    return [each for each in (*found, _data(config, layout, stage, gpus_per_node)) if each is not None]


def _tensor(config: RunConfig, layout: Layout, gpus_per_node: int) -> Traffic | None:
    """A sum for each row-parallel matrix of a block, forward and again backward: two of each in a GPT's.

    A recomputed block repeats the forward ones.

    Under sequence parallelism each is a gather and a scatter, and the two gathers are repeated for the weights'
    gradients, since what was gathered is not kept.
    """
    ranks = layout.tensor
    if ranks == 1:
        return None
    stream = _stream_bytes(config, layout)
    passes = 3 if config.training.recomputation == "full" else 2
    sums_of_a_block = _sums_of_a_block(config)
    of_blocks = sum(count * sums_of_a_block[stack] for stack, count in busiest_blocks(config, layout).items())
    sums = passes * of_blocks + 2  # the embedding's, and the head's backward
    gathers = of_blocks if layout.sequence_parallel else 0
    micro_batches = layout.micro_batches(config.training)
    sent = (2 * sums + gathers) * (ranks - 1) * stream // ranks * micro_batches
    messages = (sums * (2 if layout.sequence_parallel else 1) + gathers) * micro_batches
    kind = "gathers and scatters of tokens" if layout.sequence_parallel else "sums of activations"
    return Traffic("tensor", kind, sent, messages, ranks, _link(ranks, gpus_per_node))


def _pipeline(config: RunConfig, layout: Layout, gpus_per_node: int) -> Traffic | None:
    """A micro-batch's activations forward and their gradients backward; tensor-parallel ranks each send their part."""
    if layout.pipeline == 1:
        return None
    micro_batches = layout.micro_batches(config.training)
    part = _stream_bytes(config, layout) // layout.tensor
    return Traffic(
        "pipeline", "activations and their gradients", 2 * part * micro_batches, 2 * micro_batches, layout.pipeline,
        _link(layout.world_size, gpus_per_node),  # of several nodes some boundary is between two
    )  # fmt: skip


def _data(config: RunConfig, layout: Layout, stage: StageMemory, gpus_per_node: int) -> Traffic | None:
    """Gradients in fp32, and the weights where optimizer or weights are shared.

    ZeRO 1 scatters sums once, as NCCL does it (gloo sends twice as much: deepspeed_patches/flat_gradients.py). ZeRO 2
    all-reduces its buckets (ARCHITECTURE.md, "The engine"); ZeRO 2 and 3 send in each micro-batch, and ZeRO 3 gathers
    weights for each pass.
    """
    ranks = layout.data
    if ranks == 1:
        return None
    zero, repeats = config.parallel.zero_stage, layout.micro_batches(config.training)
    gradients, weights = FP32 * stage.parameters, BYTES_OF_PRECISION[config.training.precision] * stage.parameters
    passes = 3 if config.training.recomputation == "full" else 2
    whole = {
        0: 2 * gradients,
        1: gradients * (2 if config.parallel.overlap_reduction else 1) + weights,
        2: 2 * gradients * repeats + weights,
        3: (gradients + passes * weights) * repeats,
    }[zero]
    what = {
        0: "sums of gradients",
        1: "scattered gradients, updated weights",
        2: "sums of gradients in each micro-batch, updated weights",
        3: "weights for each pass, scattered gradients",
    }[zero]
    messages = (
        (repeats * (1 + passes) * sum(blocks_by_stack(config).values()))
        if zero == 3
        else 2 * (repeats if zero == 2 else 1)
    )
    reach = layout.tensor * ranks  # ranks of one data-parallel group are `tensor` apart
    return Traffic("data", what, whole * (ranks - 1) // ranks, messages, ranks, _link(reach, gpus_per_node))


def _stream_bytes(config: RunConfig, layout: Layout) -> int:
    """Of all tokens; under sequence parallelism a rank holds its share between the matrices."""
    return activations(config, layout).stream * (layout.tensor if layout.sequence_parallel else 1)


def blocks_by_stack(config: RunConfig) -> Counter[str]:
    """Blocks of each stack of the model."""
    blocks = {row.layer: row.stack for row in config.parameters if row.stack is not None}
    return Counter(stack for stack in blocks.values() if stack is not None)


def busiest_blocks(config: RunConfig, layout: Layout) -> dict[str, int]:
    """Blocks of each stack on a stage that has an even share, rounded up."""
    return {stack: -(-count // layout.pipeline) for stack, count in blocks_by_stack(config).items()}


def _sums_of_a_block(config: RunConfig) -> Counter[str]:
    """Of each stack the row-parallel matrices, whose outputs tensor-parallel ranks add up, of its fullest block."""
    row_parallel = [row for row in config.parameters if row.is_row_parallel]
    sums: Counter[str] = Counter()
    for (stack, _), count in Counter((row.stack, row.layer) for row in row_parallel if row.stack is not None).items():
        sums[stack] = max(sums[stack], count)
    return sums


def _link(reach: int, gpus_per_node: int) -> Link:
    return "inside a node" if reach <= gpus_per_node else "between nodes"


def pipeline_bubble(layout: Layout, micro_batches: int) -> float:
    """Share of a step in which a stage waits: (p - 1) / (m + p - 1) (Narayanan et al. 2021, section 2.2)."""
    return (layout.pipeline - 1) / (micro_batches + layout.pipeline - 1)
