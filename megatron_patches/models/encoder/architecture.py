"""What the registry knows of encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import DOCUMENTS, PICKED, POSITIONS, TOKENS, ModelInputs
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.encoder.problems import encoder_problems
from megatron_patches.models.encoder.summary import describe_encoder
from megatron_patches.models.encoder.transformers_formats.eurobert import EuroBertFormat
from megatron_patches.models.interface.architecture import (
    Activations,
    Architecture,
    FlopsPerToken,
    Recomputation,
    Workload,
)
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.models.transformer.activations import transformer_activations
from megatron_patches.models.transformer.flops import bidirectional_flops_per_token
from megatron_patches.models.transformer.parameters import transformer_parameters, transformer_path
from megatron_patches.parameters.row import ParameterRow, PathLayer

if TYPE_CHECKING:  # torch
    from megatron_patches.models.interface.layer_spec import LayerSpec
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.randomness import StepRandomness


class Encoder(Architecture):
    """Tokens in, logits of those that are masked out: NeoBERT, EuroBERT, BERT."""

    config = EncoderConfig
    parts = ("token_embedding", "positions", "attention", "mlp", "norms", "head")
    requires = frozenset({TOKENS.name})
    accepts = frozenset({POSITIONS.name, DOCUMENTS.name, PICKED.name})
    patterns = frozenset({"full", "documents"})

    def parameters(self, model: EncoderConfig, lengths: SampleLengths) -> list[ParameterRow]:
        return transformer_parameters(model, lengths.of("tokens"), model.decoder_bias)

    def path(self, model: EncoderConfig) -> list[PathLayer]:
        return transformer_path(model, model.decoder_bias)

    def flops(
        self, model: EncoderConfig, lengths: SampleLengths, recomputation: Recomputation = "none"
    ) -> FlopsPerToken:
        return bidirectional_flops_per_token(model, lengths, recomputation)

    def activations(self, model: EncoderConfig, workload: Workload) -> Activations:
        return transformer_activations(model, workload)

    def describe(self, model: EncoderConfig) -> str:
        return describe_encoder(model)

    def problems(self, model: EncoderConfig, workload: Workload) -> Iterator[Problem]:
        return encoder_problems(model, workload)

    def transformers_formats(self) -> Sequence[TransformersFormat]:
        return (EuroBertFormat(),)

    def layers(
        self,
        model: EncoderConfig,
        lengths: SampleLengths,
        inputs: ModelInputs,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation = "none",
    ) -> list[LayerSpec]:
        from megatron_patches.models.transformer.layers import transformer_layers

        positions, bias = lengths.of("tokens"), model.decoder_bias
        return transformer_layers(model, positions, inputs, groups, randomness, recomputation, bias)
