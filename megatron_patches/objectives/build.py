"""The objective of a run, from its section."""

from collections.abc import Callable
from typing import Any

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.objectives.causal import CausalObjective
from megatron_patches.objectives.masked_lm import MaskedLM
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import (
    OBJECTIVES,
    CausalConfig,
    MaskedLMConfig,
    ObjectiveSection,
    PrefixLMConfig,
)
from megatron_patches.objectives.prefix_lm import PrefixLM

Builder = Callable[[Any, int, int | None, SpecialTokens | None], Objective]
"""(section, the run's seed, the token that ends documents or None, the tokenizer's special tokens) -> objective"""

_BUILDERS: dict[type[ObjectiveSection], Builder] = {}


def register_objective(section: type[ObjectiveSection], builder: Builder) -> None:
    """Make a kind of objective known, with what makes its batches."""
    OBJECTIVES.register(section)
    _BUILDERS[section] = builder


def build_objective(
    section: ObjectiveSection, seed: int, end_of_document: int | None, special: SpecialTokens | None = None
) -> Objective:
    """What makes the batches of a section.

    Args:
        end_of_document: the token that ends documents; None where the section does not read it, or samples say which of
            their tokens are one text.
        special: the tokenizer's special tokens; needed where the section has `token_roles`.
    """
    return _BUILDERS[type(section)](section, seed, end_of_document, special)


register_objective(
    CausalConfig, lambda section, seed, end_of_document, special: CausalObjective(section, end_of_document)
)
register_objective(
    PrefixLMConfig, lambda section, seed, end_of_document, special: PrefixLM(section, seed, end_of_document)
)
register_objective(MaskedLMConfig, MaskedLM)
