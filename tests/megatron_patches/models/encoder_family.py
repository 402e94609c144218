"""ModernBERT and BERT of transformers, small, with random weights, and the same weights by our canonical names.

They are compared on what they share with ours. Their prediction heads have layers of their own, ModernBERT's first
block has no norm before attention, and BERT normalises the embedding once positions are added, where ours is normalised
before. In their models nothing stands for the heads and for BERT's norm, and a norm as the other blocks have is added.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from megatron_patches.models.encoder.encoder_config import EncoderConfig
from tests.megatron_patches.models.family import SEQUENCE, Reference

HIDDEN, HEADS, SIZE, FFN, LAYERS, VOCABULARY = 48, 6, 8, 80, 4, 64
SIZES = {
    "name": "encoder", "layers": LAYERS, "hidden_size": HIDDEN, "attention_heads": HEADS, "ffn_size": FFN,
    "vocab_size": VOCABULARY, "vocab_multiple": 32,
}  # fmt: skip
THEIR_SIZES = {
    "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": FFN,
    "vocab_size": VOCABULARY, "max_position_embeddings": SEQUENCE, "pad_token_id": 0, "bos_token_id": 0,
    "eos_token_id": 0, "attn_implementation": "sdpa",
}  # fmt: skip
ROTARY = {"name": "rotary", "theta": 500.0}
FAMILY: dict[str, dict[str, Any]] = {
    "modernbert": {
        "activation": "geglu", "gated_width": "as_given", "norm": "layernorm", "embedding_norm": True,
        "position_embedding": ROTARY, "decoder_bias": True,
    },
    "bert": {
        "activation": "gelu", "norm": "layernorm", "norm_bias": True, "norm_placement": "post", "norm_epsilon": 1e-12,
        "position_embedding": "learned", "attention_bias": True, "mlp_bias": True, "decoder_bias": True,
    },
}  # fmt: skip


def encoder_reference(kind: str) -> Reference:
    """transformers' model of this kind and what it says."""
    theirs, weights_of = _THEIRS[kind]
    model = EncoderConfig.model_validate(SIZES | FAMILY[kind])
    built = theirs(model).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in built.named_parameters():
        is_norm = "norm" in name.lower() and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if is_norm else 0.0, std=0.2, generator=generator)
    tokens = torch.randint(VOCABULARY, (2, SEQUENCE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = built(tokens).logits.numpy()
    weights = weights_of(model, built.state_dict())
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    shapes = {name: weight.shape for name, weight in weights.items()}
    return Reference(model, SEQUENCE, shapes, flat, tokens.numpy(), logits)


def _modernbert(model: EncoderConfig) -> Any:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    rotary = {"rope_type": "default", "rope_theta": 500.0}
    config = ModernBertConfig(
        **THEIR_SIZES, layer_types=["full_attention"] * LAYERS, norm_eps=model.norm_epsilon, cls_token_id=0,
        sep_token_id=0, rope_parameters={"full_attention": rotary, "sliding_attention": rotary},
    )  # fmt: skip
    theirs = ModernBertForMaskedLM(config)
    theirs.head = nn.Identity()
    theirs.model.layers[0].attn_norm = nn.LayerNorm(HIDDEN, eps=model.norm_epsilon, bias=False)
    return theirs


def _modernbert_weights(model: EncoderConfig, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {
        "embedding.tokens.table.weight": theirs["model.embeddings.tok_embeddings.weight"],
        "embedding_norm.weight": theirs["model.embeddings.norm.weight"],
    }
    for index in range(LAYERS):
        ours, block = f"layers.{index}", f"model.layers.{index}"
        fused = theirs[f"{block}.attn.Wqkv.weight"].unflatten(0, (3, HEADS, SIZE)).transpose(0, 1)
        found[f"{ours}.attention.query_key_value.linear.weight"] = fused
        found[f"{ours}.attention.output.linear.weight"] = theirs[f"{block}.attn.Wo.weight"]
        found[f"{ours}.mlp.up.linear.weight"] = theirs[f"{block}.mlp.Wi.weight"].unflatten(0, (2, FFN))
        found[f"{ours}.mlp.down.linear.weight"] = theirs[f"{block}.mlp.Wo.weight"]
        found[f"{ours}.attention_norm.weight"] = theirs[f"{block}.attn_norm.weight"]
        found[f"{ours}.mlp_norm.weight"] = theirs[f"{block}.mlp_norm.weight"]
    return found | {"final_norm.weight": theirs["model.final_norm.weight"], "head_bias.bias": theirs["decoder.bias"]}


def _bert(model: EncoderConfig) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    theirs = BertForMaskedLM(BertConfig(**THEIR_SIZES, hidden_act="gelu", layer_norm_eps=model.norm_epsilon))
    theirs.bert.embeddings.LayerNorm = nn.Identity()
    theirs.cls.predictions.transform = nn.Identity()
    return theirs


def _bert_weights(model: EncoderConfig, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The type of all tokens is 0, so its row is a part of every position's."""
    embeddings = "bert.embeddings"
    found = {
        "embedding.tokens.table.weight": theirs[f"{embeddings}.word_embeddings.weight"],
        "positions.weight": theirs[f"{embeddings}.position_embeddings.weight"]
        + theirs[f"{embeddings}.token_type_embeddings.weight"][0],
    }
    names = {
        "attention.output.linear": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
        "mlp.up.linear": "intermediate.dense", "mlp.down.linear": "output.dense", "mlp_norm": "output.LayerNorm",
    }  # fmt: skip
    for index in range(LAYERS):
        ours, block = f"layers.{index}", f"bert.encoder.layer.{index}"
        for kind in ("weight", "bias"):
            parts = (theirs[f"{block}.attention.self.{name}.{kind}"] for name in ("query", "key", "value"))
            fused = torch.stack([part.unflatten(0, (HEADS, SIZE)) for part in parts], dim=1)
            found[f"{ours}.attention.query_key_value.linear.{kind}"] = fused
            found |= {f"{ours}.{name}.{kind}": theirs[f"{block}.{other}.{kind}"] for name, other in names.items()}
    return found | {"head_bias.bias": theirs["cls.predictions.bias"]}


_THEIRS: dict[
    str, tuple[Callable[[EncoderConfig], Any], Callable[[EncoderConfig, dict[str, Tensor]], dict[str, Tensor]]]
] = {
    "modernbert": (_modernbert, _modernbert_weights),
    "bert": (_bert, _bert_weights),
}
