"""Values of every key of a `config.json`: the fields of transformers' own class, the names that these had, and what
transformers reads without declaring it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

LEGACY: dict[str, list[tuple[str, Any]]] = {
    "gpt2": [("n_ctx", 4)],
    "bloom": [("n_embed", 64), ("n_embed", 32), ("seq_length", 4), ("offset_alibi", 100)],
    "llama": [
        ("rope_theta", 500.0), ("rope_theta", 500), ("partial_rotary_factor", 0.5), ("head_dim", 16), ("head_dim", 8),
    ],
    "eurobert": [
        ("rope_theta", 500.0), ("rope_theta", 500), ("partial_rotary_factor", 0.5), ("head_dim", 16), ("head_dim", 8),
    ],
    "gpt_neox": [
        ("rotary_emb_base", 500), ("rotary_pct", 0.5), ("rotary_pct", 1.0), ("rotary_pct", 0.0), ("rotary_pct", 0.4),
        ("rope_theta", 500.0), ("partial_rotary_factor", 0.5),
    ],
}  # fmt: skip
UNDECLARED: list[tuple[str, Any]] = [
    ("is_causal", False), ("is_causal", True), ("sliding_window", 4), ("attention_chunk_size", 4),
    ("layer_types", ["full_attention", "full_attention"]), ("layer_types", ["sliding_attention", "full_attention"]),
    ("num_labels", 3), ("use_bidirectional_attention", True), ("torch_dtype", "float32"), ("unk_token_id", 1),
    ("attention_softmax_in_fp32", True), ("masked_softmax_fusion", True), ("_name_or_path", "x"), ("new_key", 7),
    ("logits_scaling", 2.0), ("final_logit_softcapping", 3.0), ("attn_logit_softcapping", 3.0),
    ("embedding_multiplier", 2.0), ("attention_multiplier", 2.0), ("residual_multiplier", 2.0),
]  # fmt: skip
SPECIAL = {"transformers_version", "architectures", "dtype", "id2label", "label2id", "problem_type", "model_type"}
"""keys of every class that say nothing of what the model computes; `dtype` is of the weights' files"""


def their_changes(model_type: str, keys: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Key and value, one change of a `config.json` each."""
    from transformers import AutoConfig
    from transformers.activations import ACT2CLS

    own = AutoConfig.for_model(model_type, **keys)
    names = [field.name for field in dataclasses.fields(own) if field.init and field.name not in SPECIAL]
    for name in [*names, *type(own).attribute_map]:
        value = getattr(own, name)
        if name in ("activation_function", "hidden_act"):
            yield from ((name, word) for word in ACT2CLS)
        elif name != "rope_parameters":
            yield from ((name, other) for other in _others(value))
        else:
            yield from _rotary(value)
    yield from LEGACY[model_type]
    yield from UNDECLARED
    yield "per_layer_config", {"0": {_epsilon(own): 0.5}}


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value, value // 2]
    if isinstance(value, float):
        return [2 * value + 0.125]
    return [True, 1, "sum"]


def _rotary(own: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every kind of scaling that transformers has, by its new and its old key, and other angles."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 4,
              "short_factor": [2.0] * 4, "long_factor": [2.0] * 4}  # fmt: skip
    for kind in ROPE_INIT_FUNCTIONS:
        yield "rope_parameters", {**own, "rope_type": kind, **scaled}
        yield "rope_scaling", {"rope_type": kind, **scaled}
        yield "rope_scaling", {"type": kind, "factor": 4.0}
    yield "rope_scaling", {"type": "default"}
    yield "rope_parameters", {"rope_type": "default"}
    yield "rope_parameters", {**own, "rope_theta": 500.0}
    for factor in (0.0, 0.1, 0.5, 0.74, 1.0, 0.4):
        yield "rope_parameters", {**own, "partial_rotary_factor": factor}


def _epsilon(config: Any) -> str:
    return next(field.name for field in dataclasses.fields(config) if "eps" in field.name)
