"""Parameters of a model, counted from its configuration."""

from dataclasses import dataclass

from megatron_patches.models.model_config import ModelConfig


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
    """Counts a GPT whose position table has `sequence_length` rows.

    At ffn 4h and with a tied head the total is l(12h^2 + 13h) + vh + sh + 2h (layers l, width h, vocabulary v,
    sequence s), the count that BigScience's scripts use.
    """
    layers, hidden, ffn = model.layers, model.hidden_size, model.ffn_size
    return ParameterCount(
        token_embedding=model.vocab_size * hidden,
        positions=model.position_embedding.parameters(sequence_length, hidden),
        attention=layers * (4 * hidden * hidden + 4 * hidden),
        mlp=layers * (2 * hidden * ffn + ffn + hidden),
        norms=(layers * 2 + 1) * 2 * hidden,
        head=0 if model.tied_head else model.vocab_size * hidden,
    )
