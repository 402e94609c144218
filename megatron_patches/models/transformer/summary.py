"""The words that describe a GPT or an encoder."""

from collections.abc import Mapping

from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.sizes import counted


def described_size(model: TransformerConfig) -> list[str]:
    """Blocks, widths and heads, and the kinds of positions, MLP and norm."""
    heads = f"{model.attention_heads} heads"
    if model.groups != model.attention_heads:
        heads += f" ({model.groups} key/value)"
    return [
        counted(model.layers, "block"),
        f"width {model.hidden_size}",
        heads,
        model.position_embedding.describe(),
        f"{model.activation} {model.mlp_width}",
        model.norm,
    ]


def described_switches(model: TransformerConfig, switches: Mapping[str, bool]) -> list[str]:
    """The texts of switches that are on, then what is dropped."""
    cap = model.logit_soft_cap
    all_switches = {**switches, f"logits within {cap or 0:g}": cap is not None}
    return [*(text for text, is_on in all_switches.items() if is_on), *_dropouts(model)]


def _dropouts(model: TransformerConfig) -> list[str]:
    """One number where all three are alike, else each that there is with its place."""
    shares = {
        "sub-layers": model.hidden_dropout,
        "attention weights": model.attention_dropout,
        "the embedding": model.dropout_of_embedding,
    }
    if len(set(shares.values())) == 1:
        return [f"dropout {model.hidden_dropout:g}"] if model.hidden_dropout else []
    return [f"dropout {share:g} of {where}" for where, share in shares.items() if share]
