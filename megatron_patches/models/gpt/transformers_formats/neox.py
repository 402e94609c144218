"""GPT-NeoX (Black et al. 2022) as transformers has it: rotary positions on a share of each head, one or two sums."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.transformers_formats.fused_blocks import FusedBlocks
from megatron_patches.models.gpt.transformers_formats.gpt_switches import WITH_LAYER_NORMS
from megatron_patches.models.interface.transformers_format import FilledTensor, ModelRead, TensorPair
from megatron_patches.models.transformer.transformers_formats.config_keys import ConfigReader, written_activation
from megatron_patches.models.transformer.transformers_formats.rotary_keys import (
    rotary_section,
    turned_share,
    written_partial_rotary,
)
from megatron_patches.models.transformer.transformers_formats.sorted_format import SortedFormat
from megatron_patches.models.transformer.transformers_formats.switches import ANY, only

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
"""ours and theirs"""
_BLOCKS = FusedBlocks(
    base="gpt_neox",
    blocks="layers",
    attention="attention",
    outside={"embedding.tokens.table": "embed_in", "final_norm": "final_layer_norm"},
)


class NeoXFormat(SortedFormat):
    """`GPTNeoXForCausalLM`. Biases of norms and of the MLP that the model has not are written as zeros."""

    model_type = "gpt_neox"
    class_name = "GPTNeoXForCausalLM"
    base = _BLOCKS.base
    table = "gpt_neox.embed_in.weight"
    taken: ClassVar = {
        **WITH_LAYER_NORMS,
        "ffn_size": ANY,
        "position_embedding": only("position_embedding", "rotary", "none"),
        "position_embedding.theta": ANY,
        "position_embedding.fraction": ANY,
        "position_embedding.pairs": only("position_embedding.pairs", "half"),
        "activation": only("activation", *ACTIVATIONS),
        "embedding_norm": only("embedding_norm", False),
        "parallel_residual": ANY,
    }

    def config(self, model: GPTConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
        return {
            "num_hidden_layers": model.layers,
            "hidden_size": model.hidden_size,
            "num_attention_heads": model.attention_heads,
            "intermediate_size": model.ffn_size,
            "max_position_embeddings": lengths.of("tokens"),
            "rope_parameters": written_partial_rotary(model),
            "hidden_act": written_activation(ACTIVATIONS, model),
            "layer_norm_eps": model.norm_epsilon,
            "use_parallel_residual": model.parallel_residual,
            "attention_bias": model.attention_bias,
            "hidden_dropout": model.hidden_dropout,
            "attention_dropout": model.attention_dropout,
            "initializer_range": model.deviation,
        }

    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        keys = ConfigReader(self.model_type, config)
        keys.refuse_other_functions()
        hidden = keys.whole("hidden_size", default=6144)
        heads = keys.whole("num_attention_heads", default=64)
        section = {
            "name": "gpt",
            "layers": keys.whole("num_hidden_layers", default=44),
            "hidden_size": hidden,
            "attention_heads": heads,
            "ffn_size": keys.whole("intermediate_size", default=24576),
            "vocab_size": keys.whole("vocab_size", default=50432),
            "position_embedding": _read_positions(keys, hidden // heads),
            "activation": keys.activation("hidden_act", ACTIVATIONS, default="gelu"),
            "norm_epsilon": keys.number("layer_norm_eps", default=1e-5),
            "parallel_residual": keys.flag("use_parallel_residual", default=True),
            "attention_bias": keys.flag("attention_bias", default=True),
            "tied_head": keys.flag("tie_word_embeddings", default=False),
            "hidden_dropout": keys.number("hidden_dropout", default=0.0),
            "attention_dropout": keys.number("attention_dropout", default=0.0),
            "init_std": keys.number("initializer_range", default=0.02),
        }
        return ModelRead(section, keys.whole("max_position_embeddings", default=2048))

    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        return _BLOCKS.pair(name, shape, model)

    def filled(self, model: GPTConfig) -> list[FilledTensor]:
        return _BLOCKS.absent_biases(model, attention=False)

    def current_name(self, name: str) -> str:
        """Before transformers 5 the head was called `embed_out`."""
        return super().current_name(
            name.replace("embed_out.", "lm_head.", 1) if name.startswith("embed_out.") else name
        )

    def ignored(self, name: str) -> bool:
        # masks and wavelengths, which versions before 4.31 saved
        return name.endswith((".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"))


def _read_positions(keys: ConfigReader, head_size: int) -> dict[str, JsonValue]:
    """Rotary positions, or none where no feature is turned."""
    rotary = rotary_section(keys)
    theta = rotary.number("rope_theta", default=keys.number("rotary_emb_base", default=10000.0))
    factor = rotary.number("partial_rotary_factor", default=keys.number("rotary_pct", default=0.25))
    # Versions 4.4x wrote these beside rotary_emb_base and rotary_pct; version 5 does not read them.
    keys.only("rope_theta", theta, default=theta)
    keys.only("partial_rotary_factor", factor, default=factor)
    share = turned_share(head_size, factor)
    if share is None:
        takes = f"a share that turns an even number of a head's {head_size} features"
        if rotary.has("partial_rotary_factor"):
            rotary.refuse("partial_rotary_factor", takes)
        keys.refuse("rotary_pct", f"{takes}; unset, it is 0.25")
    return {"name": "rotary", "theta": theta, "fraction": share} if share > 0 else {"name": "none"}
