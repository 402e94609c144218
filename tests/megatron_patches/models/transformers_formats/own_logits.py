"""What our own model says with given or random weights, on a process of its own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from megatron_patches.models.layers.model_config import ModelConfig

POSITIONS = 12


class OwnModels:
    """Models of ours in fp32, one after another; one object in a process that `run_on_ranks` starts."""

    def __init__(self) -> None:
        from megatron_patches.parallel.layout import Layout
        from megatron_patches.parallel.process_groups import start_process_groups
        from megatron_patches.parallel.randomness import StepRandomness

        self.groups = start_process_groups(Layout(1, 1, 1), torch.float32)
        self.randomness = StepRandomness(0, self.groups.coordinates, self.groups.device)

    def logits(self, model: ModelConfig, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        """`[batch, sequence, vocab_size]`; rows that only pad the vocabulary keep their draw."""
        plain, parameters = self._built(model)
        assert parameters.keys() == weights.keys()
        with torch.no_grad():
            for name, parameter in parameters.items():
                given = weights[name]
                parameter.view(-1)[: given.numel()].copy_(given.reshape(-1))
            found: Tensor = plain({"tokens": tokens}).transpose(0, 1)[..., : model.vocab_size]
        return found

    def random_weights(self, model: ModelConfig) -> dict[str, Tensor]:
        """By name, in the shapes of the rows; no bias is zero and no scale is 1."""
        from megatron_patches.parameters.info import info_of

        generator = torch.Generator().manual_seed(3)
        found = {}
        for name, parameter in self._built(model)[1].items():
            shape = info_of(parameter).slice.global_shape
            middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            found[name] = middle + 0.2 * torch.randn(shape, generator=generator)
        return found

    def _built(self, model: ModelConfig) -> tuple[Any, dict[str, Any]]:
        from megatron_patches.models.build import canonical_parameters
        from tests.small_model import plain_model

        plain = plain_model(model, POSITIONS, self.groups, self.randomness).eval()
        return plain, canonical_parameters(plain)
