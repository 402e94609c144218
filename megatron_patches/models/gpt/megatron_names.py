"""Megatron-DeepSpeed's names, as BigScience's and Microsoft's forks have them, of modules and of pipelines.

A pipeline names a parameter by the number of its layer in the list of specs, functions without parameters counted:
`3.self_attention.dense.weight`, or for what stages share `tied_modules.embed.word_embeddings.weight`. In the files
`layer_NN-model_TT-model_states.pt` the number is the file's. The forks' lists differ, so the numbers are found.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from megatron_patches.errors import TrainyardError
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.parameters.name_map import NameMap, NameRule

TITLE = "megatron-deepspeed"

_BLOCK = {
    "input_layernorm.*": "attention_norm.*",
    "self_attention.query_key_value.*": "attention.query_key_value.linear.*",
    "attention.query_key_value.*": "attention.query_key_value.linear.*",
    "self_attention.dense.*": "attention.output.linear.*",
    "attention.dense.*": "attention.output.linear.*",
    "post_attention_layernorm.*": "mlp_norm.*",
    "mlp.dense_h_to_4h.*": "mlp.up.linear.*",
    "mlp.dense_4h_to_h.*": "mlp.down.linear.*",
}
_EMBEDDING = {
    "word_embeddings.weight": "embedding.tokens.table.weight",
    "word_embeddings.norm.*": "embedding_norm.*",
    "position_embeddings.weight": "positions.weight",
}
_NO_PARAMETERS = ("*.rotary_emb.inv_freq", "*._extra_state")


class MegatronNames:
    """What `--names megatron-deepspeed` stands for (`models.architecture.NameFormat`)."""

    def names_found(self, names: Sequence[str], model: GPTConfig, settings: Mapping[str, Any]) -> NameMap:
        """See `megatron_map`."""
        return megatron_map(names, model, settings)

    def names_to_write(self, model: GPTConfig) -> NameMap:
        """Those of BigScience's pipeline."""
        return bigscience_pipeline(model)

    def setting_differences(self, model: GPTConfig, settings: Mapping[str, Any]) -> list[str]:
        """See the function of this name."""
        return setting_differences(model, settings)


def megatron_map(names: Iterable[str], model: GPTConfig, settings: Mapping[str, Any]) -> NameMap:
    """The map that fits a checkpoint's names.

    Raises:
        TrainyardError: the settings they saved say of a gated MLP neither which fork nor which half is activated.
    """
    found = set(names)
    rules = [*_module_rules("transformer"), *_module_rules("encoder")]
    first = _numbers(r"(\d+)\.(?:input_layernorm|self_attention|attention)\..*", found)
    if first:
        embedding = [f"{number}." for number in _numbers(r"(\d+)\.word_embeddings\.weight", found)]
        final = _numbers(r"(\d+)\.(?:weight|bias)", found)
        rules += _pipeline_rules(min(first), embedding, final, _numbers(r"(\d+)\.lm_head\.weight", found))
    return NameMap(TITLE, tuple(rules), _NO_PARAMETERS, value_before_gate=_value_before_gate(model, settings))


def bigscience_pipeline(model: GPTConfig) -> NameMap:
    """The names of BigScience's pipeline: a cast, the embedding, a transposition, the blocks, another, the norm."""
    if not model.tied_head:
        raise TrainyardError(
            "BigScience's Megatron-DeepSpeed has no model with an untied head; write a YAML of names for --names"
        )
    rules = _pipeline_rules(3, [], [model.layers + 4], [])
    return NameMap(TITLE, tuple(rules), value_before_gate=model.gated)


def _module_rules(stack: str) -> list[NameRule]:
    rules = _rules("language_model.embedding.", _EMBEDDING, "")
    rules += _rules(f"language_model.{stack}.layers.{{n}}.", _BLOCK, "layers.{n}.")
    return [
        *rules,
        NameRule(f"language_model.{stack}.final_layernorm.*", "final_norm.*"),
        NameRule("language_model.output_layer.weight", "head.logits.linear.weight"),
        NameRule("word_embeddings.weight", "embedding.tokens.table.weight"),  # the last stage's copy of a tied table
        NameRule("word_embeddings_for_head.weight", "embedding.tokens.table.weight"),
    ]


def _pipeline_rules(first: int, embedding: list[str], final: list[int], head: list[int]) -> list[NameRule]:
    rules = _rules("tied_modules.embed.", _EMBEDDING, "")
    for prefix in embedding:
        rules += _rules(prefix, _EMBEDDING, "")
    rules += _rules(f"{{n+{first}}}.", _BLOCK, "layers.{n}.")
    rules += [NameRule(f"{number}.*", "final_norm.*") for number in final]
    return rules + [NameRule(f"{number}.lm_head.weight", "head.logits.linear.weight") for number in head]


def _rules(theirs: str, names: dict[str, str], ours: str) -> list[NameRule]:
    return [NameRule(theirs + name, ours + own) for name, own in names.items()]


def _numbers(pattern: str, names: set[str]) -> list[int]:
    return sorted({int(match[1]) for name in names if (match := re.fullmatch(pattern, name))})


def _value_before_gate(model: GPTConfig, settings: Mapping[str, Any]) -> bool | None:
    """BigScience multiplies the first half with the activated second; Microsoft, as NVIDIA, activates the first."""
    if not model.gated:
        return False
    if settings.get("glu_activation"):
        return True
    return False if settings.get("swiglu") else None


_COMPARED = {
    "num_layers": "layers",
    "hidden_size": "hidden_size",
    "num_attention_heads": "attention_heads",
    "ffn_hidden_size": "ffn_size",
    "layernorm_epsilon": "norm_epsilon",
}


def setting_differences(model: GPTConfig, settings: Mapping[str, Any]) -> list[str]:
    """What their saved command line says that the shapes of tensors do not: heads above all."""
    found = []
    for theirs, ours in _COMPARED.items():
        saved, wanted = settings.get(theirs), getattr(model, ours)
        gated_size = theirs == "ffn_hidden_size" and model.gated  # BigScience's counts what both halves replace
        if saved is not None and saved != wanted and not gated_size:
            found.append(f"their {theirs} is {saved}, model.{ours} is {wanted}")
    return found
