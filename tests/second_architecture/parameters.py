"""Every parameter of two stacks, and the layers in their positions. Torch-free."""

from collections.abc import Iterator

from megatron_patches.parameters.row import Cut, ParameterRow, PathLayer
from tests.second_architecture.config import TwoStacksConfig

HEADS, FEATURES = "heads", "features"
"""keys that give a cut dimension its size"""


def parameters(model: TwoStacksConfig) -> list[ParameterRow]:
    """First layer to last, each of the two shared tables once."""
    rows = [
        ParameterRow(
            "embedding.tokens.table.weight", (model.vocab_size, model.width), "embedding", matrix=True,
            initial="normal", deviation=model.deviation, cut=Cut(0, "vocab_size"), row_for_each="vocabulary",
        ),
        ParameterRow(
            "relative_bias.weight", (model.heads, model.buckets), "relative_bias", matrix=True, initial="normal",
            deviation=model.deviation, cut=Cut(0, HEADS), looked_up=True,
        ),
    ]  # fmt: skip
    for number in range(model.encoder_blocks):
        rows += _block(f"encoder.layers.{number}", ("attention",), model)
    rows.append(_norm("encoder_norm.weight", model))
    for number in range(model.decoder_blocks):
        rows += _block(f"decoder.layers.{number}", ("attention", "cross_attention"), model)
    return [*rows, _norm("decoder_norm.weight", model)]


def path(model: TwoStacksConfig) -> list[PathLayer]:
    """The embedding is three layers, the table of distances one in front of each block of the encoder."""
    embedding, table = PathLayer("embedding", table=True), PathLayer("relative_bias", leads=True)
    encoder = [
        layer
        for number in range(model.encoder_blocks)
        for layer in (table, PathLayer(f"encoder.layers.{number}"))
    ]  # fmt: skip
    decoder = [PathLayer(f"decoder.layers.{number}") for number in range(model.decoder_blocks)]
    return [embedding, *encoder, PathLayer("encoder_norm"), embedding, *decoder, PathLayer("decoder_norm"), embedding]


def _block(prefix: str, attentions: tuple[str, ...], model: TwoStacksConfig) -> Iterator[ParameterRow]:
    for attention in attentions:
        yield _norm(f"{prefix}.{attention}_norm.weight", model)
        yield from _attention(f"{prefix}.{attention}", model)
    yield _norm(f"{prefix}.mlp_norm.weight", model)
    yield from _mlp(f"{prefix}.mlp", model)


def _attention(prefix: str, model: TwoStacksConfig) -> Iterator[ParameterRow]:
    """Queries are of one stream, keys and values, in one matrix, of one that may be another."""
    heads, size, width = model.heads, model.head_size, model.width
    yield _matrix(f"{prefix}.query.linear.weight", (heads, size, width), "attention", model, Cut(0, HEADS))
    yield _matrix(f"{prefix}.key_value.linear.weight", (heads, 2, size, width), "attention", model, Cut(0, HEADS), 1)
    yield _matrix(f"{prefix}.output.linear.weight", (width, width), "attention", model, Cut(1, HEADS))


def _mlp(prefix: str, model: TwoStacksConfig) -> Iterator[ParameterRow]:
    cut = Cut(0, FEATURES, resizable=True)
    yield _matrix(f"{prefix}.up.linear.weight", (model.features, model.width), "mlp", model, cut)
    yield ParameterRow(f"{prefix}.up.linear.bias", (model.features,), "mlp", matrix=False, initial="zeros", cut=cut)
    yield _matrix(f"{prefix}.down.linear.weight", (model.width, model.features), "mlp", model, Cut(1, FEATURES))
    yield ParameterRow(
        f"{prefix}.down.linear.bias", (model.width,), "mlp", matrix=False, initial="zeros", partial="tokens"
    )


def _matrix(
    name: str, shape: tuple[int, ...], part: str, model: TwoStacksConfig, cut: Cut, fused: int | None = None
) -> ParameterRow:
    return ParameterRow(
        name, shape, part, matrix=True, initial="normal", deviation=model.deviation, cut=cut, fused=fused
    )


def _norm(name: str, model: TwoStacksConfig) -> ParameterRow:
    return ParameterRow(name, (model.width,), "norms", matrix=False, initial="ones", partial="tokens")
