"""BLOOM (BigScience 2022) as transformers has it: ALiBi, normalised embeddings, an MLP four times as wide."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.transformers_formats.fused_blocks import FusedBlocks
from megatron_patches.models.gpt.transformers_formats.gpt_switches import FOUR_TIMES_HIDDEN, WITH_LAYER_NORMS
from megatron_patches.models.interface.transformers_format import FilledTensor, ModelRead, TensorPair
from megatron_patches.models.transformer.transformers_formats.config_keys import ConfigReader
from megatron_patches.models.transformer.transformers_formats.sorted_format import SortedFormat
from megatron_patches.models.transformer.transformers_formats.switches import only

_BLOCKS = FusedBlocks(
    base="transformer",
    blocks="h",
    attention="self_attention",
    outside={
        "embedding.tokens.table": "word_embeddings",
        "embedding_norm": "word_embeddings_layernorm",
        "final_norm": "ln_f",
    },
)


class BloomFormat(SortedFormat):
    """`BloomForCausalLM`. Biases that the model has not are written as zeros."""

    model_type = "bloom"
    class_name = "BloomForCausalLM"
    base = _BLOCKS.base
    table = "transformer.word_embeddings.weight"
    taken: ClassVar = {
        **WITH_LAYER_NORMS,
        "ffn_size": FOUR_TIMES_HIDDEN,
        "position_embedding": only("position_embedding", "alibi"),
        "activation": only("activation", "gelu_tanh"),
        "embedding_norm": only("embedding_norm", True),
        "parallel_residual": only("parallel_residual", False),
    }

    def config(self, model: GPTConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
        return {
            "n_layer": model.layers,
            "hidden_size": model.hidden_size,
            "n_head": model.attention_heads,
            "layer_norm_epsilon": model.norm_epsilon,
            "apply_residual_connection_post_layernorm": False,
            "hidden_dropout": model.hidden_dropout,
            "attention_dropout": model.attention_dropout,
            "initializer_range": model.deviation,
        }

    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        keys = ConfigReader(self.model_type, config)
        keys.refuse_other_functions()
        keys.only("apply_residual_connection_post_layernorm", False, default=False)
        hidden = keys.whole("hidden_size", "n_embed", default=64)
        section = {
            "name": "gpt",
            "layers": keys.whole("n_layer", "num_hidden_layers", default=2),
            "hidden_size": hidden,
            "attention_heads": keys.whole("n_head", "num_attention_heads", default=8),
            "ffn_size": 4 * hidden,
            "vocab_size": keys.whole("vocab_size", default=250880),
            "position_embedding": "alibi",
            "embedding_norm": True,
            "norm_epsilon": keys.number("layer_norm_epsilon", default=1e-5),
            "tied_head": keys.flag("tie_word_embeddings", default=True),
            "hidden_dropout": keys.number("hidden_dropout", default=0.0),
            "attention_dropout": keys.number("attention_dropout", default=0.0),
            "embedding_dropout": 0.0,
            "init_std": keys.number("initializer_range", default=0.02),
        }
        return ModelRead(section, positions=None)

    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        return _BLOCKS.pair(name, shape, model)

    def filled(self, model: GPTConfig) -> list[FilledTensor]:
        return _BLOCKS.absent_biases(model, attention=True)
