"""A model before it is built: its layers, what each reads and sends, and the rows of its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import ModelInputs
from megatron_patches.batch.stream import Boundary, plan_boundaries
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.interface.layer_spec import LayerSpec
from megatron_patches.models.registry import architecture_of
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.parameters.row import ParameterRow


@dataclass(frozen=True)
class LayerCall:
    """A layer's spec, and the stream before and behind it."""

    spec: LayerSpec
    before: Boundary
    behind: Boundary


@dataclass(frozen=True)
class Blueprint:
    """What a plain module or a pipeline is built from, on this rank."""

    calls: Sequence[LayerCall]
    """first to last"""
    rows: Mapping[str, ParameterRow]
    """by canonical name"""
    groups: ProcessGroups
    seed: int | None
    """of initial weights; None leaves them as memory was, for stored ones to take their place"""


def draw_up(
    model: ModelSection,
    lengths: SampleLengths,
    inputs: ModelInputs,
    groups: ProcessGroups,
    randomness: StepRandomness,
    seed: int | None,
    recomputation: Recomputation = "none",
) -> Blueprint:
    """The blueprint of a model of any architecture, for samples of these lengths and fields."""
    architecture = architecture_of(model)
    specs = architecture.layers(model, lengths, inputs, groups, randomness, recomputation)
    boundaries = plan_boundaries(inputs, specs)
    calls = [LayerCall(*each) for each in zip(specs, boundaries, boundaries[1:], strict=False)]
    rows = {row.name: row for row in architecture.parameters(model, lengths)}
    return Blueprint(calls, rows, groups, seed)
