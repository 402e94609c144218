"""What formats of GPTs take alike."""

from collections.abc import Mapping

from megatron_patches.models.transformer.transformers_formats.switches import ANY, COMMON, Taken, only

AS_MANY_AS_HEADS = Taken(
    lambda model: model.groups == model.attention_heads, lambda model: f"attention_heads ({model.attention_heads})"
)
"""of `key_value_heads`: each head has keys and values of its own"""

FOUR_TIMES_HIDDEN = Taken(
    lambda model: model.ffn_size == 4 * model.hidden_size, lambda model: f"4 * hidden_size ({4 * model.hidden_size})"
)
"""of `ffn_size`"""

WITH_LAYER_NORMS: Mapping[str, Taken] = {
    **COMMON,
    "name": only("name", "gpt"),
    "key_value_heads": AS_MANY_AS_HEADS,
    "norm": only("norm", "layernorm"),
    "norm_bias": ANY,
}
"""the same of all formats but Llama's"""
