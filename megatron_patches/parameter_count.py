"""Parameters of a model, counted from its configuration."""

from collections import Counter
from dataclasses import dataclass

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import parameter_table


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part; padding rows of the vocabulary count."""

    token_embedding: int
    positions: int
    attention: int
    mlp: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """Parameters of the whole model, a tied head counted once."""
        return self.token_embedding + self.positions + self.attention + self.mlp + self.norms + self.head


def count_parameters(model: ModelConfig, sequence_length: int) -> ParameterCount:
    """Counts a GPT whose position table, where it has one, has `sequence_length` rows.

    For GPT-2's architecture at ffn 4h the total is l(12h^2 + 13h) + vh + sh + 2h (layers l, width h, vocabulary v,
    sequence s), the count that BigScience's scripts use; for BLOOM's l(12h^2 + 13h) + vh + 4h.
    """
    count: Counter[str] = Counter()
    for row in parameter_table(model, sequence_length):
        count[row.part] += row.elements
    return ParameterCount(
        token_embedding=count["token_embedding"],
        positions=count["positions"],
        attention=count["attention"],
        mlp=count["mlp"],
        norms=count["norms"],
        head=count["head"],
    )
