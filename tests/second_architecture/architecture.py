"""What the registry knows of two stacks. Torch-free but for `layers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import ModelInputs
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.interface.architecture import (
    Activations,
    Architecture,
    FlopsPerToken,
    Recomputation,
    Workload,
)
from megatron_patches.parameters.row import ParameterRow, PathLayer
from tests.second_architecture.activations import two_stacks_activations
from tests.second_architecture.config import DECODER_TOKENS, ENCODER_TOKENS, TwoStacksConfig
from tests.second_architecture.flops import two_stacks_flops
from tests.second_architecture.parameters import parameters, path

if TYPE_CHECKING:  # torch
    from megatron_patches.models.interface.layer_spec import LayerSpec
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.randomness import StepRandomness


class TwoStacks(Architecture):
    """Tokens of the encoder and of the decoder in, logits of the decoder's next ones out."""

    config = TwoStacksConfig
    parts = ("embedding", "relative_bias", "attention", "mlp", "norms")
    requires = frozenset({ENCODER_TOKENS.name, DECODER_TOKENS.name})
    accepts = frozenset()
    patterns = frozenset({"causal"})

    def parameters(self, model: TwoStacksConfig, lengths: SampleLengths) -> list[ParameterRow]:
        return parameters(model)

    def path(self, model: TwoStacksConfig) -> list[PathLayer]:
        return path(model)

    def flops(
        self, model: TwoStacksConfig, lengths: SampleLengths, recomputation: Recomputation = "none"
    ) -> FlopsPerToken:
        return two_stacks_flops(model, lengths, recomputation)

    def activations(self, model: TwoStacksConfig, workload: Workload) -> Activations:
        return two_stacks_activations(model, workload)

    def describe(self, model: TwoStacksConfig) -> str:
        blocks = f"{model.encoder_blocks} + {model.decoder_blocks} blocks"
        bias = f"relative bias of {model.buckets} buckets in the encoder"
        dropped = f", dropout {model.dropout:g}" if model.dropout else ""
        return f"{blocks}, width {model.width}, {model.heads} heads, {bias}, relu {model.features}{dropped}"

    def problems(self, model: TwoStacksConfig, workload: Workload) -> Iterator[Problem]:
        """What its layers were not made for."""
        if workload.training.attention_kernel in ("flash", "cudnn"):
            yield Problem(
                "training.attention_kernel",
                f"training.attention_kernel {workload.training.attention_kernel} gives the encoder's learned bias no "
                "gradient; use efficient, math or auto",
            )
        if workload.training.fp8 != "none":
            yield Problem("training.fp8", "training.fp8 is not for model two_stacks; use none")

    def layers(
        self,
        model: TwoStacksConfig,
        lengths: SampleLengths,
        inputs: ModelInputs,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation = "none",
    ) -> list[LayerSpec]:
        from tests.second_architecture.layers import Parts, two_stacks_layers

        return two_stacks_layers(Parts(model, lengths, groups, randomness, recomputation))
