"""Blocks of BLOOM and GPT-NeoX: queries, keys and values fused head by head, as ours, and alike names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.interface.transformers_format import FilledTensor, TensorPair
from megatron_patches.models.transformer.transformers_formats.rearranging import same, vocabulary


@dataclass(frozen=True)
class FusedBlocks:
    """Their names of what we have."""

    base: str
    """what the names begin with"""
    blocks: str
    """name of the list of blocks"""
    attention: str
    """name of a block's attention"""
    outside: Mapping[str, str]
    """names of layers outside the blocks, ours and theirs"""

    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        """One of our parameters and its tensor.

        Args:
            shape: of our row.
        """
        if name == "head.logits.linear.weight":
            return vocabulary(name, "lm_head.weight", model.vocab_size)
        layer, _, kind = name.rpartition(".")
        if layer in self.outside:
            theirs = f"{self.base}.{self.outside[layer]}.{kind}"
            is_table = layer == "embedding.tokens.table"
            return vocabulary(name, theirs, model.vocab_size) if is_table else same(name, theirs, shape)
        _, number, inside = layer.split(".", 2)
        return same(name, f"{self._block(int(number))}.{self._inside[inside]}.{kind}", shape)

    def absent_biases(self, model: GPTConfig, attention: bool) -> list[FilledTensor]:
        """Biases that they always have and the model has not.

        Args:
            attention: they cannot leave out those of attention.
        """
        return [FilledTensor(f"{name}.bias", (size,)) for name, size in self._absent_biases(model, attention)]

    def _absent_biases(self, model: GPTConfig, attention: bool) -> Iterator[tuple[str, int]]:
        hidden = model.hidden_size
        sizes: dict[str, int] = {}
        if not model.norm_bias:
            sizes |= {"attention_norm": hidden, "mlp_norm": hidden}
            norms = [each for each in self.outside if each.endswith("_norm")]
            yield from ((f"{self.base}.{self.outside[norm]}", hidden) for norm in norms)
        if attention and not model.attention_bias:
            sizes |= {"attention.query_key_value.linear": 3 * hidden, "attention.output.linear": hidden}
        if not model.mlp_bias:
            sizes |= {"mlp.up.linear": model.ffn_size, "mlp.down.linear": hidden}
        for number in range(model.layers):
            yield from ((f"{self._block(number)}.{self._inside[layer]}", size) for layer, size in sizes.items())

    def _block(self, number: int) -> str:
        return f"{self.base}.{self.blocks}.{number}"

    @property
    def _inside(self) -> dict[str, str]:
        return {
            "attention_norm": "input_layernorm",
            "attention.query_key_value.linear": f"{self.attention}.query_key_value",
            "attention.output.linear": f"{self.attention}.dense",
            "mlp_norm": "post_attention_layernorm",
            "mlp.up.linear": "mlp.dense_h_to_4h",
            "mlp.down.linear": "mlp.dense_4h_to_h",
        }
