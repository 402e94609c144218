"""Every parameter of a GPT or an encoder, from the configuration alone. Torch-free; a test compares the built model."""

from collections.abc import Iterator

from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parameters.row import Cut, ParameterRow, Partial, PathLayer, path_of


def transformer_parameters(model: TransformerConfig, positions: int, head_bias: bool = False) -> list[ParameterRow]:
    """All parameters, first layer to last, a tied head's once; a position table has a row for each of the positions.

    `head_bias` says that a bias is added to the logits; it is a layer of its own: a tied head has no place for it.
    """
    hidden = model.hidden_size
    rows = [_vocabulary_table("embedding.tokens.table.weight", "token_embedding", model, looked_up=not model.tied_head)]
    if model.embedding_norm:
        rows += _norm("embedding_norm", hidden, model)
    if model.position_embedding.parameters(positions, hidden):
        rows.append(
            ParameterRow(
                "positions.weight", (positions, hidden), "positions", matrix=True, initial="normal",
                deviation=model.deviation, partial="tokens", looked_up=True, row_for_each="positions",
            )
        )  # fmt: skip
    for index in range(model.layers):
        rows += _block(f"layers.{index}", model)
    if model.norm_placement == "pre":  # of a post-norm model the last block's output is normalised already
        rows += _norm("final_norm", hidden, model)
    if not model.tied_head:
        rows.append(_vocabulary_table("head.logits.linear.weight", "head", model))
    if head_bias:
        cut = Cut(0, "vocab_size", padded_by="vocab_multiple")
        rows.append(
            ParameterRow(
                "head_bias.bias", (model.padded_vocab_size,), "head", matrix=False, initial="zeros", cut=cut,
                row_for_each="vocabulary",
            )
        )  # fmt: skip
    return rows


def transformer_path(model: TransformerConfig, head_bias: bool = False) -> list[PathLayer]:
    """The layers in the order of the forward pass; a tied head is the embedding again."""
    names = path_of(transformer_parameters(model, positions=1))
    names += [*(["embedding"] if model.tied_head else []), *(["head_bias"] if head_bias else [])]
    return [PathLayer(name, table=name in ("embedding", "head")) for name in names]


def _vocabulary_table(name: str, part: str, model: TransformerConfig, looked_up: bool = False) -> ParameterRow:
    return ParameterRow(
        name, (model.padded_vocab_size, model.hidden_size), part, matrix=True, initial="normal",
        deviation=model.deviation, cut=Cut(0, "vocab_size", padded_by="vocab_multiple"), looked_up=looked_up,
        row_for_each="vocabulary",
    )  # fmt: skip


def _block(prefix: str, model: TransformerConfig) -> Iterator[ParameterRow]:
    yield from _norm(f"{prefix}.attention_norm", model.hidden_size, model)
    yield from _attention(f"{prefix}.attention", model)
    yield from _norm(f"{prefix}.mlp_norm", model.hidden_size, model)
    yield from _mlp(f"{prefix}.mlp", model)


def _attention(prefix: str, model: TransformerConfig) -> Iterator[ParameterRow]:
    """Queries, keys and values in one matrix, a head's rows together; grouped keys and values in one of their own."""
    hidden, size, bias = model.hidden_size, model.head_size, model.attention_bias
    heads = Cut(0, "attention_heads")
    if model.groups == model.attention_heads:
        shape = (model.attention_heads, 3, size)
        yield from _column(f"{prefix}.query_key_value", hidden, shape, bias, "attention", model, heads, fused=1)
    else:
        yield from _column(f"{prefix}.query", hidden, (model.attention_heads, size), bias, "attention", model, heads)
        groups = Cut(0, "key_value_heads", shared=True)
        shape = (model.groups, 2, size)
        yield from _column(f"{prefix}.key_value", hidden, shape, bias, "attention", model, groups, fused=1)
    if model.query_key_norm:
        yield from _norm(f"{prefix}.query_norm", size, model, of_heads=True)
        yield from _norm(f"{prefix}.key_norm", size, model, of_heads=True)
    yield from _row(f"{prefix}.output", hidden, bias, "attention", model, Cut(1, "attention_heads"))


def _mlp(prefix: str, model: TransformerConfig) -> Iterator[ParameterRow]:
    """A gated MLP's two input matrices are one of shape (2, ffn, hidden)."""
    up = (2, model.mlp_width) if model.gated else (model.mlp_width,)
    cut, rows = (
        Cut(
            dimension, "ffn_size", resizable=True, multiple=model.mlp_multiple,
            setting_per_entry=model.ffn_size_per_feature,
        )
        for dimension in (1 if model.gated else 0, 1)
    )  # fmt: skip
    fused = 0 if model.gated else None
    yield from _column(f"{prefix}.up", model.hidden_size, up, model.mlp_bias, "mlp", model, cut, fused)
    yield from _row(f"{prefix}.down", model.mlp_width, model.mlp_bias, "mlp", model, rows)


def _column(
    prefix: str,
    inputs: int,
    outputs: tuple[int, ...],
    bias: bool,
    part: str,
    model: TransformerConfig,
    cut: Cut,
    fused: int | None = None,
) -> Iterator[ParameterRow]:
    """A column-parallel matrix and its bias. Ranks that share a head of keys each use a part of what they all hold."""
    partial: Partial | None = "features" if cut.shared else None
    yield ParameterRow(
        f"{prefix}.linear.weight", (*outputs, inputs), part, matrix=True, initial="normal", deviation=model.deviation,
        cut=cut, fused=fused, partial=partial,
    )  # fmt: skip
    if bias:
        yield ParameterRow(
            f"{prefix}.linear.bias", outputs, part, matrix=False, initial="zeros", cut=cut, fused=fused, partial=partial
        )


def _row(prefix: str, inputs: int, bias: bool, part: str, model: TransformerConfig, cut: Cut) -> Iterator[ParameterRow]:
    """A row-parallel matrix, which writes to the residual stream; its bias is added once, to each rank's tokens."""
    yield ParameterRow(
        f"{prefix}.linear.weight", (model.hidden_size, inputs), part, matrix=True, initial="normal",
        deviation=model.residual_deviation, cut=cut,
    )  # fmt: skip
    if bias:
        yield ParameterRow(
            f"{prefix}.linear.bias", (model.hidden_size,), part, matrix=False, initial="zeros", partial="tokens"
        )


def _norm(prefix: str, features: int, model: TransformerConfig, of_heads: bool = False) -> Iterator[ParameterRow]:
    """Of the stream each rank normalises its tokens, of queries and keys its heads."""
    partial: Partial = "features" if of_heads else "tokens"
    yield ParameterRow(f"{prefix}.weight", (features,), "norms", matrix=False, initial="ones", partial=partial)
    if model.norm_bias:  # never with RMSNorm, which the configuration refuses
        yield ParameterRow(f"{prefix}.bias", (features,), "norms", matrix=False, initial="zeros", partial=partial)
