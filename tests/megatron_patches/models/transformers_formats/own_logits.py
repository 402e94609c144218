"""What our own model says with given weights, on a process of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.parameter_table import parameter_table
from tests.small_model import causal_lengths

POSITIONS = 12


class OwnModels:
    """Models of ours in fp32, one after another; one object in a process that `run_on_ranks` starts."""

    def __init__(self) -> None:
        from megatron_patches.parallel.layout import Layout
        from megatron_patches.parallel.process_groups import start_process_groups
        from megatron_patches.parallel.randomness import StepRandomness

        self.groups = start_process_groups(Layout(1, 1, 1), torch.float32)
        self.randomness = StepRandomness(0, self.groups.coordinates, self.groups.device)

    def logits(
        self, model: TransformerConfig, weights: Mapping[str, Tensor], tokens: Tensor, positions: int = POSITIONS
    ) -> Tensor:
        """`[batch, sequence, vocab_size]`; rows that only pad the vocabulary keep their draw."""
        from megatron_patches.models.build import canonical_parameters
        from tests.small_model import plain_model, text_inputs

        inputs = text_inputs(model)
        plain = plain_model(model, positions, self.groups, self.randomness, inputs=inputs).eval()
        parameters = canonical_parameters(plain)
        assert parameters.keys() == weights.keys()
        with torch.no_grad():
            for name, parameter in parameters.items():
                given = weights[name]
                parameter.view(-1)[: given.numel()].copy_(given.reshape(-1))
            found: Tensor = plain({"tokens": tokens}).transpose(0, 1)[..., : model.vocab_size]
        return found


def random_weights(model: TransformerConfig) -> dict[str, Tensor]:
    """By name, in the shapes of the rows; no bias is zero and no scale is 1."""
    generator = torch.Generator().manual_seed(3)
    return {
        row.name: (1.0 if row.initial == "ones" else 0.0) + 0.2 * torch.randn(row.shape, generator=generator)
        for row in parameter_table(model, causal_lengths(POSITIONS))
    }
