"""Llama (Touvron et al. 2023) as transformers has it: rotary positions, RMSNorm, a gated MLP, grouped heads."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.interface.transformers_format import FilledTensor, ModelRead, TensorPair
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
from megatron_patches.models.transformer.transformers_formats.switches import only

_DEFAULTS = Defaults(
    layers=32, hidden_size=4096, attention_heads=32, ffn_size=11008, vocab_size=32000, norm_epsilon=1e-6, positions=2048
)


class LlamaFormat(SortedFormat):
    """`LlamaForCausalLM`."""

    model_type = "llama"
    class_name = "LlamaForCausalLM"
    base = "model"
    table = TABLE
    taken: ClassVar = {**LIKE_LLAMA, "name": only("name", "gpt")}

    def config(self, model: GPTConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
        return written_like_llama(model, lengths)

    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        keys = ConfigReader(self.model_type, config)
        return ModelRead({"name": "gpt", **read_like_llama(keys, _DEFAULTS)}, read_positions(keys, _DEFAULTS))

    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        return separate_pair(name, shape, model)

    def filled(self, model: GPTConfig) -> list[FilledTensor]:
        return []

    def ignored(self, name: str) -> bool:
        return name.endswith(".rotary_emb.inv_freq")  # wavelengths, which versions before 4.32 saved
