"""Which layers each pipeline stage holds: consecutive ones, so that the largest stage is as small as it can be.

Torch-free: a run's stages are shown before it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Literal

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import parameter_table

if TYPE_CHECKING:
    from megatron_patches.run_config import RunConfig

Partition = Literal["transformer", "transformer|embedding", "parameters"]


@dataclass(frozen=True)
class PlannedLayer:
    """A layer with parameters, by the canonical prefix that its spec has; a tied head is the embedding's again."""

    name: str
    is_block: bool
    is_table: bool
    parameters: int

    def weight(self, partition: Partition) -> int:
        """What the layer counts when stages are balanced."""
        if partition == "parameters":
            return self.parameters
        return int(self.is_block or (self.is_table and partition == "transformer|embedding"))


@dataclass(frozen=True)
class Stage:
    """What one pipeline stage holds."""

    layers: tuple[str, ...]
    """canonical prefixes, first to last"""
    blocks: int
    parameters: int
    """a tied embedding counts on both stages that hold it"""

    @property
    def names(self) -> str:
        """The layers for people, blocks that follow each other together: `layers.0 to layers.5, final_norm`."""
        words = []
        for is_block, same in groupby(self.layers, key=lambda name: name.startswith("layers.")):
            first, *rest = same
            words += [f"{first} to {rest[-1]}"] if is_block and rest else [first, *rest]
        return ", ".join(words)


def stages_of(config: "RunConfig") -> list[Stage]:
    """The stages of a run, first to last."""
    parallel = config.parallel
    return plan_stages(config.model, config.data.sequence_length, parallel.pipeline, parallel.pipeline_partition)


def plan_stages(
    model: ModelConfig, sequence_length: int, stages: int, partition: Partition = "transformer"
) -> list[Stage]:
    """The same of a model."""
    layers = planned_layers(model, sequence_length)
    edges = partition_layers([layer.weight(partition) for layer in layers], stages)
    return [_stage(layers[start:stop]) for start, stop in pairwise(edges)]


def _stage(layers: Sequence[PlannedLayer]) -> Stage:
    return Stage(
        layers=tuple(layer.name for layer in layers),
        blocks=sum(layer.is_block for layer in layers),
        parameters=sum(layer.parameters for layer in layers),
    )


def planned_layers(model: ModelConfig, sequence_length: int) -> list[PlannedLayer]:
    """The model's layers in the order of its forward pass; those without parameters are left out."""
    counts: dict[str, int] = {}
    for row in parameter_table(model, sequence_length):
        counts[layer_of(row.name)] = counts.get(layer_of(row.name), 0) + row.elements
    layers = [
        PlannedLayer(
            name, is_block=name.startswith("layers."), is_table=name in ("embedding", "head"), parameters=count
        )
        for name, count in counts.items()
    ]
    if "head" not in counts:
        head = next(layer for layer in layers if layer.name == "embedding")
        layers.append(head)
    return layers


def layer_of(parameter: str) -> str:
    """The layer's name in a parameter's canonical name."""
    parts = parameter.split(".")
    return ".".join(parts[: 2 if parts[0] == "layers" else 1])


def partition_layers(weights: Sequence[int], stages: int) -> list[int]:
    """Boundaries of consecutive stages: stage i holds layers `edges[i]` to `edges[i + 1]` of the result.

    The largest stage is as small as possible; among those the sum of squares is, so that the rest is even too; among
    those the later stages hold less, since the last one has the loss. A layer of weight 0 stays with the one before it
    (the first ones with the one behind them), and every stage holds a layer that weighs something.
    """
    heavy = [number for number, weight in enumerate(weights) if weight > 0]
    assert 1 <= stages <= len(heavy), f"{len(heavy)} layers of any weight cannot be {stages} stages"
    before = [0, *accumulate(weights[number] for number in heavy)]
    firsts = _best_firsts(before, stages, _least_largest(before, stages))
    return [0, *(heavy[first] for first in firsts[1:]), len(weights)]


def _least_largest(before: Sequence[int], stages: int) -> int:
    """Least possible weight of the largest stage, by halving the range it lies in."""
    low, high = max(b - a for a, b in pairwise(before)), before[-1]
    while low < high:
        middle = (low + high) // 2
        if _stages_needed(before, middle) <= stages:
            high = middle
        else:
            low = middle + 1
    return low


def _stages_needed(before: Sequence[int], largest: int) -> int:
    needed, start = 1, before[0]
    for reached, following in pairwise(before):
        if following - start > largest:
            needed, start = needed + 1, reached
    return needed


def _best_firsts(before: Sequence[int], stages: int, largest: int) -> list[int]:
    """First layer of each stage. `best[n]` is (sum of squares, firsts) of layers n and on, over the last stages."""
    count = len(before) - 1
    best: dict[int, tuple[int, list[int]]] = {count: (0, [])}
    for stage in reversed(range(stages)):
        found: dict[int, tuple[int, list[int]]] = {}
        for first in range(stage, count):
            for stop in range(first + 1, count + 1):
                size = before[stop] - before[first]
                if size > largest:
                    break
                if stop in best and (first not in found or size**2 + best[stop][0] <= found[first][0]):
                    found[first] = (size**2 + best[stop][0], [first, *best[stop][1]])
        best = found
    return best[0][1]
