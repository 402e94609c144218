"""Parameters of a model, counted from its table."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_tools.samples.lengths import SampleLengths
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.models.registry import architecture_of


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part; padding rows of the vocabulary count."""

    by_part: Mapping[str, int]
    """0 of a part that this model lacks"""

    @property
    def total(self) -> int:
        """Parameters of the whole model, what is shared counted once."""
        return sum(self.by_part.values())


def count_parameters(model: ModelSection, lengths: SampleLengths) -> ParameterCount:
    """Counts the table, a parameter under its part.

    For GPT-2's architecture at ffn 4h the total is l(12h^2 + 13h) + vh + sh + 2h (layers l, width h, vocabulary v,
    positions s), the count that BigScience's scripts use; for BLOOM's l(12h^2 + 13h) + vh + 4h.
    """
    count = dict.fromkeys(architecture_of(model).parts, 0)
    for row in parameter_table(model, lengths):
        count[row.part] += row.elements
    return ParameterCount(count)


def active_parameters(model: ModelSection, lengths: SampleLengths) -> int:
    """Parameters that a token is multiplied with; of tables that are looked up it reads one row."""
    return sum(row.elements for row in parameter_table(model, lengths) if not row.looked_up)
