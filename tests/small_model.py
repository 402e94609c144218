"""Models without a run: a plain module of a `model:` section, for tests of what layers compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import TOKENS, ModelInputs
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.registry import architecture_of
from megatron_patches.objectives.objective_config import CausalConfig

if TYPE_CHECKING:
    from megatron_patches.models.blueprint import Blueprint
    from megatron_patches.models.build import PlainModel
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.randomness import StepRandomness

PLAIN_INPUTS = ModelInputs((TOKENS,), "causal")
WHOLE_TEXTS = ModelInputs((TOKENS,), "full")
"""what an encoder reads"""


def text_inputs(model: ModelSection) -> ModelInputs:
    """What a model reads of a text: an encoder all of it at once."""
    return WHOLE_TEXTS if "full" in architecture_of(model).patterns else PLAIN_INPUTS


def causal_lengths(positions: int) -> SampleLengths:
    """Of samples whose every token predicts the next one."""
    return CausalConfig(name="causal").lengths(positions)


def blueprint(
    model: ModelSection,
    positions: int,
    groups: ProcessGroups,
    randomness: StepRandomness,
    recomputation: Recomputation = "none",
    seed: int = 0,
    inputs: ModelInputs = PLAIN_INPUTS,
) -> Blueprint:
    """Of a model that reads samples of so many positions."""
    from megatron_patches.models.blueprint import draw_up

    return draw_up(model, causal_lengths(positions), inputs, groups, randomness, seed, recomputation)


def plain_model(
    model: ModelSection,
    positions: int,
    groups: ProcessGroups,
    randomness: StepRandomness,
    recomputation: Recomputation = "none",
    seed: int = 0,
    inputs: ModelInputs = PLAIN_INPUTS,
) -> PlainModel:
    """The same, built."""
    from megatron_patches.models.build import PlainModel

    return PlainModel(blueprint(model, positions, groups, randomness, recomputation, seed, inputs))
