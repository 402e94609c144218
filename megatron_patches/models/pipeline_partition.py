"""Which layers each pipeline stage holds: consecutive ones, so that the largest stage is as small as it can be.

Torch-free: a run's stages are shown before it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Literal

from data_tools.samples.lengths import SampleLengths
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.models.registry import architecture_of
from megatron_patches.parameters.row import PathLayer, stack_of

Partition = Literal["transformer", "transformer|embedding", "parameters"]


@dataclass(frozen=True)
class PlannedLayers:
    """Layers that stay together: one with parameters, and those in front of it that lead it (`PathLayer.leads`)."""

    names: tuple[str, ...]
    blocks: int
    tables: int
    parameters: int

    def weight(self, partition: Partition) -> int:
        """What they count when stages are balanced."""
        if partition == "parameters":
            return self.parameters
        return self.blocks + (self.tables if partition == "transformer|embedding" else 0)


@dataclass(frozen=True)
class Stage:
    """What one pipeline stage holds."""

    layers: tuple[str, ...]
    """canonical prefixes in the order of the forward pass, a shared layer in each of its places"""
    parameters: int
    """of each layer once; one that several stages share counts on all of them"""

    @property
    def blocks(self) -> int:
        """Transformer blocks."""
        return sum(stack_of(name) is not None for name in self.layers)

    @property
    def blocks_by_stack(self) -> dict[str, int]:
        """The same for each stack that has any here."""
        stacks = [stack for name in self.layers if (stack := stack_of(name)) is not None]
        return {stack: stacks.count(stack) for stack in dict.fromkeys(stacks)}

    @property
    def names(self) -> str:
        """The layers for people, blocks that follow each other together: `layers.0 to layers.5, final_norm`.

        A table that is in front of each block is said in front of the first one.
        """
        said = [name for index, name in enumerate(self.layers) if not self._again_between_blocks(index)]
        parts = []
        for stack, same in groupby(said, key=stack_of):
            first, *rest = same
            parts += [f"{first} to {rest[-1]}"] if stack and rest else [first, *rest]
        return ", ".join(parts)

    def _again_between_blocks(self, index: int) -> bool:
        """Whether a layer is between two blocks of a stack, and was in front of the first of them too."""
        if not 2 <= index < len(self.layers) - 1 or self.layers[index] != self.layers[index - 2]:
            return False
        before, behind = stack_of(self.layers[index - 1]), stack_of(self.layers[index + 1])
        return before is not None and before == behind


def plan_stages(
    model: ModelSection, lengths: SampleLengths, stages: int, partition: Partition = "transformer"
) -> list[Stage]:
    """The stages of a model, first to last."""
    counts: dict[str, int] = {}
    for row in parameter_table(model, lengths):
        counts[row.layer] = counts.get(row.layer, 0) + row.elements
    layers = _planned_layers(architecture_of(model).path(model), counts)
    edges = partition_layers([each.weight(partition) for each in layers], stages)
    return [_stage(layers[start:stop], counts) for start, stop in pairwise(edges)]


def _stage(layers: Sequence[PlannedLayers], counts: dict[str, int]) -> Stage:
    names = tuple(name for each in layers for name in each.names)
    return Stage(names, sum(counts[name] for name in dict.fromkeys(names)))


def _planned_layers(path: Sequence[PathLayer], counts: dict[str, int]) -> list[PlannedLayers]:
    planned: list[PlannedLayers] = []
    waiting: list[PathLayer] = []
    for layer in path:
        waiting.append(layer)
        if not layer.leads:
            names = tuple(each.name for each in waiting)
            planned.append(
                PlannedLayers(
                    names,
                    blocks=sum(stack_of(name) is not None for name in names),
                    tables=sum(each.table for each in waiting),
                    parameters=sum(counts[name] for name in names),
                )
            )
            waiting = []
    assert not waiting, f"{waiting[-1].name} leads no layer behind it"
    return planned


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
