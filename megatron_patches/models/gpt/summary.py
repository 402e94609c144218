"""A GPT in a line: what is there always, then what differs from GPT-2."""

from megatron_patches.models.layers.model_config import ModelConfig
from megatron_patches.sizes import counted


def describe_gpt(model: ModelConfig) -> str:
    """For example `24 blocks, width 2048, 16 heads (4 key/value), rotary, swiglu 5504, rmsnorm, untied head`."""
    heads = f"{model.attention_heads} heads"
    if model.groups != model.attention_heads:
        heads += f" ({model.groups} key/value)"
    size = [
        counted(model.layers, "block"),
        f"width {model.hidden_size}",
        heads,
        model.position_embedding.describe(),
    ]
    return ", ".join([*size, f"{model.activation} {model.ffn_size}", model.norm, *_differences(model)])


def _differences(model: ModelConfig) -> list[str]:
    """What GPT-2 has not."""
    biases = {"attention": model.attention_bias, "MLP": model.mlp_bias}
    if model.norm == "layernorm":  # the other kind has none
        biases["norms"] = model.norm_bias
    without = [part for part, has_bias in biases.items() if not has_bias]
    cap = model.logit_soft_cap
    switches = {
        "post-norm": model.norm_placement == "post",
        "parallel residual": model.parallel_residual,
        "embedding norm": model.embedding_norm,
        "query-key norm": model.query_key_norm,
        f"no biases in {', '.join(without)}": bool(without),
        "untied head": not model.tied_head,
        f"logits within {cap or 0:g}": cap is not None,
    }
    return [*(text for text, is_on in switches.items() if is_on), *_dropouts(model)]


def _dropouts(model: ModelConfig) -> list[str]:
    """One number where all three are alike, else each that there is with its place."""
    shares = {
        "sub-layers": model.hidden_dropout,
        "attention weights": model.attention_dropout,
        "the embedding": model.dropout_of_embedding,
    }
    if len(set(shares.values())) == 1:
        return [f"dropout {model.hidden_dropout:g}"] if model.hidden_dropout else []
    return [f"dropout {share:g} of {where}" for where, share in shares.items() if share]
