"""What the registry knows of the GPT family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, TOKENS, VISIBLE, ModelInputs
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.megatron_names import TITLE, MegatronNames
from megatron_patches.models.gpt.problems import gpt_problems
from megatron_patches.models.gpt.summary import describe_gpt
from megatron_patches.models.gpt.transformers_formats.bloom import BloomFormat
from megatron_patches.models.gpt.transformers_formats.gpt2 import GPT2Format
from megatron_patches.models.gpt.transformers_formats.llama import LlamaFormat
from megatron_patches.models.gpt.transformers_formats.neox import NeoXFormat
from megatron_patches.models.interface.architecture import (
    Activations,
    Architecture,
    FlopsPerToken,
    NameFormat,
    Recomputation,
    Workload,
)
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.models.transformer.activations import transformer_activations
from megatron_patches.models.transformer.flops import flops_per_token
from megatron_patches.models.transformer.parameters import transformer_parameters, transformer_path
from megatron_patches.parameters.row import ParameterRow, PathLayer

if TYPE_CHECKING:  # torch
    from megatron_patches.models.interface.layer_spec import LayerSpec
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.randomness import StepRandomness


class GPT(Architecture):
    """Tokens in, logits of the next ones out: GPT-2 and its descendants."""

    config = GPTConfig
    parts = ("token_embedding", "positions", "attention", "mlp", "norms", "head")
    requires = frozenset({TOKENS.name})
    accepts = frozenset({POSITIONS.name, VISIBLE.name, DOCUMENTS.name})
    patterns = frozenset({"causal", "ranges", "causal_documents"})
    keeps_keys = True

    def parameters(self, model: GPTConfig, lengths: SampleLengths) -> list[ParameterRow]:
        return transformer_parameters(model, lengths.of("tokens"))

    def path(self, model: GPTConfig) -> list[PathLayer]:
        return transformer_path(model)

    def flops(self, model: GPTConfig, lengths: SampleLengths, recomputation: Recomputation = "none") -> FlopsPerToken:
        return flops_per_token(model, lengths.of("tokens"), recomputation)

    def activations(self, model: GPTConfig, workload: Workload) -> Activations:
        return transformer_activations(model, workload)

    def describe(self, model: GPTConfig) -> str:
        return describe_gpt(model)

    def problems(self, model: GPTConfig, workload: Workload) -> Iterator[Problem]:
        return gpt_problems(model, workload)

    def formats(self) -> Mapping[str, NameFormat]:
        return {TITLE: MegatronNames()}

    def transformers_formats(self) -> Sequence[TransformersFormat]:
        return (GPT2Format(), BloomFormat(), LlamaFormat(), NeoXFormat())

    def layers(
        self,
        model: GPTConfig,
        lengths: SampleLengths,
        inputs: ModelInputs,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation = "none",
    ) -> list[LayerSpec]:
        from megatron_patches.models.transformer.layers import transformer_layers

        return transformer_layers(model, lengths.of("tokens"), inputs, groups, randomness, recomputation)
