"""EuroBERT (Boizard et al. 2025) as transformers has it: Llama's blocks whose tokens all see each other."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.interface.transformers_format import FilledTensor, ModelRead, TensorPair
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.transformer.transformers_formats.config_keys import ConfigReader
from megatron_patches.models.transformer.transformers_formats.llama_keys import (
    LIKE_LLAMA,
    Defaults,
    read_like_llama,
    read_positions,
    written_like_llama,
)
from megatron_patches.models.transformer.transformers_formats.separate_blocks import TABLE, separate_pair
from megatron_patches.models.transformer.transformers_formats.sorted_format import SortedFormat
from megatron_patches.models.transformer.transformers_formats.switches import ANY, only

_DEFAULTS = Defaults(
    layers=12, hidden_size=768, attention_heads=12, ffn_size=3072, vocab_size=128256, norm_epsilon=1e-5, positions=8192
)


class EuroBertFormat(SortedFormat):
    """`EuroBertForMaskedLM`. Its `mlp_bias` is that of the MLP and of the decoder: where the model has one of the two,
    the other is written as zeros."""

    model_type = "eurobert"
    class_name = "EuroBertForMaskedLM"
    task = "fill-mask"
    base = "model"
    table = TABLE
    taken: ClassVar = {
        **LIKE_LLAMA,
        "name": only("name", "encoder"),
        "gated_width": ANY,  # intermediate_size is the width that it gives
        "decoder_bias": ANY,
    }

    def config(self, model: EncoderConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
        return written_like_llama(model, lengths) | {"mlp_bias": model.mlp_bias or model.decoder_bias}

    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        keys = ConfigReader(self.model_type, config)
        section = read_like_llama(keys, _DEFAULTS, causal=False)
        own = {"name": "encoder", "gated_width": "as_given", "decoder_bias": section["mlp_bias"]}
        # the rows of its table are those that it stores
        return ModelRead({**section, **own, "vocab_multiple": 1}, read_positions(keys, _DEFAULTS))

    def as_read(self, model: TransformerConfig) -> TransformerConfig:
        if not isinstance(model, EncoderConfig) or not model.gated:
            return model
        return model.model_copy(update={"ffn_size": model.mlp_width, "gated_width": "as_given"})

    def pair(self, name: str, shape: tuple[int, ...], model: EncoderConfig) -> TensorPair:
        return separate_pair(name, shape, model)

    def filled(self, model: EncoderConfig) -> list[FilledTensor]:
        return [FilledTensor(f"{name}.bias", (size,)) for name, size in _absent_biases(model)]


def _absent_biases(model: EncoderConfig) -> Iterator[tuple[str, int]]:
    """Biases that it has and the model has not: name and size."""
    if model.mlp_bias and not model.decoder_bias:
        yield "lm_head", model.vocab_size
    if model.decoder_bias and not model.mlp_bias:
        for number in range(model.layers):
            block = f"model.layers.{number}.mlp"
            yield from ((f"{block}.gate_proj", model.mlp_width), (f"{block}.up_proj", model.mlp_width))
            yield f"{block}.down_proj", model.hidden_size
