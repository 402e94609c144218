"""Floating-point work of a training step, by conventions that are compared in print. Torch-free."""

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.interface.architecture import FlopsPerToken, Recomputation
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.transformer.parameters import transformer_parameters


def flops_per_token(
    model: TransformerConfig, sequence_length: int, recomputation: Recomputation = "none"
) -> FlopsPerToken:
    """All conventions at once, of a model whose tokens see those before them."""
    return FlopsPerToken(
        palm=palm_flops(model, sequence_length),
        bigscience=bigscience_flops(model, sequence_length, recomputation),
        causal=causal_flops(model, sequence_length),
        computed=computed_flops(model, sequence_length, recomputation),
    )


def bidirectional_flops_per_token(
    model: TransformerConfig, lengths: SampleLengths, recomputation: Recomputation = "none"
) -> FlopsPerToken:
    """The same of a model whose tokens see each other, and of whose logits those of picked places alone are made.

    `causal` and `computed` count the logits that are made; the other two, which are compared in print, count all.
    Documents apart keep fewer scores; all of them are counted here.
    """
    length = lengths.of("tokens")
    unpicked = 0.0 if lengths.picked is None else 1 - lengths.picked / length
    left_out = 6.0 * model.hidden_size * model.padded_vocab_size * unpicked
    return FlopsPerToken(
        palm=palm_flops(model, length),
        bigscience=bigscience_flops(model, length, recomputation),
        causal=training_flops_per_token(model, length) - left_out,
        computed=computed_flops(model, length, recomputation) - left_out,
    )


def palm_flops(model: TransformerConfig, sequence_length: int) -> float:
    """6N + 12LHQT, with N as nanoGPT takes it: without what is only looked up (positions, an untied embedding)."""
    return 6.0 * active_parameters(model, sequence_length) + 12.0 * model.layers * model.hidden_size * sequence_length


def bigscience_flops(model: TransformerConfig, sequence_length: int, recomputation: Recomputation = "none") -> float:
    """BigScience's exact formula for one token.

    Its logits are those of c = 4: with c = 3 they count 4.5 hV, where 6 hV are computed.
    """
    coefficient = 4 if recomputation == "full" else 3
    logits = 1.5 * model.hidden_size * model.padded_vocab_size
    return coefficient * (model.layers * _layer_flops(model, sequence_length) + logits)


def training_flops_per_token(model: TransformerConfig, sequence_length: int) -> float:
    """FLOPs of forward and backward pass for one token, without recomputation, attention counted whole.

    BigScience's exact formula for the layers, with the MLP at its own width and the keys and values at theirs, and the
    logits as they are computed: 6 hV.
    """
    layers = model.layers * _layer_flops(model, sequence_length)
    return 3.0 * (layers + 2 * model.hidden_size * model.padded_vocab_size)


def causal_flops(model: TransformerConfig, sequence_length: int) -> float:
    """The same with the scores that causal attention keeps: a token sees (s + 1) / 2 tokens on average.

    A prefix or documents apart would keep more or fewer of them; they are counted as causal here.
    """
    seen = (sequence_length + 1) / 2
    unseen = 3.0 * model.layers * 4 * (sequence_length - seen) * model.hidden_size
    return training_flops_per_token(model, sequence_length) - unseen


def computed_flops(model: TransformerConfig, sequence_length: int, recomputation: Recomputation) -> float:
    """Forward, backward, and what recomputation repeats: all layers, or the scores and their use."""
    once = training_flops_per_token(model, sequence_length)
    if recomputation == "full":
        return once + model.layers * _layer_flops(model, sequence_length)
    if recomputation == "selective":
        return once + model.layers * 4 * sequence_length * model.hidden_size
    return once


def active_parameters(model: TransformerConfig, sequence_length: int) -> int:
    """Parameters that a token is multiplied with; of positions and an untied embedding one row is looked up."""
    return sum(row.elements for row in transformer_parameters(model, sequence_length) if not row.looked_up)


def _layer_flops(model: TransformerConfig, sequence_length: int) -> float:
    """Forward pass of a layer, one token.

    4h^2 for queries and output, 4h*kv for keys and values (kv = h unless heads share them), 4sh for the scores and
    their use, 4h*ffn for an MLP's two matrices or 6h*ffn for the three of a gated one.
    """
    hidden = model.hidden_size
    projections = 4 * hidden**2 + 4 * hidden * model.groups * model.head_size
    mlp = (6 if model.gated else 4) * hidden * model.mlp_width
    return projections + 4 * sequence_length * hidden + mlp
