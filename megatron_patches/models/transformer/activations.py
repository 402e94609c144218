"""Bytes that a rank keeps between forward and backward pass of one micro-batch. Torch-free.

Counted as the layers of `models/` keep them, tensor by tensor, uncompiled; a compiled block keeps no more than that. A
test holds the counts to the storages that are alive after a forward pass.
"""

from dataclasses import dataclass

from megatron_patches.batch.fields import PICKED, POSITIONS
from megatron_patches.models.interface.architecture import Activations, Workload
from megatron_patches.models.layers.position_config import RotaryPositionConfig
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.layout import Layout

FP32, INT64 = 4, 8
LOSS_ELEMENTS_AT_ONCE = {"cuda": 1 << 24, "cpu": 1 << 18}
"""as objectives/loss.py: numbers in fp32 that are made of logits at a time"""


@dataclass(frozen=True)
class _Sizes:
    """What the counts are made of: tokens and features on this rank, bytes of a number."""

    model: TransformerConfig
    work: Workload

    @property
    def layout(self) -> Layout:
        return self.work.layout

    @property
    def device(self) -> str:
        return self.work.device

    @property
    def micro_batch(self) -> int:
        return self.work.micro_batch

    @property
    def positions(self) -> int:
        """of a sample"""
        return self.work.lengths.of("tokens")

    @property
    def width(self) -> int:
        return self.work.width

    @property
    def tokens(self) -> int:
        """that pass through matrices"""
        return self.micro_batch * self.positions

    @property
    def stream_tokens(self) -> int:
        """that lie between matrices"""
        return self.tokens // (self.layout.tensor if self.layout.sequence_parallel else 1)

    @property
    def stream(self) -> int:
        return self.stream_tokens * self.model.hidden_size * self.width

    @property
    def heads(self) -> int:
        return self.model.attention_heads // self.layout.tensor

    @property
    def queries(self) -> int:
        """bytes of all queries here"""
        return self.tokens * self.heads * self.model.head_size * self.width

    @property
    def groups(self) -> int:
        return max(1, self.model.groups // self.layout.tensor)

    @property
    def keys(self) -> int:
        """bytes of all keys that are used here"""
        return self.tokens * self.groups * self.model.head_size * self.width

    @property
    def features(self) -> int:
        """bytes of the MLP's features here, once"""
        return self.tokens * self.model.mlp_width // self.layout.tensor * self.width

    @property
    def picked(self) -> int:
        """tokens whose logits are made"""
        return self.micro_batch * self.work.lengths.of("picked") if self.work.inputs.has(PICKED) else self.tokens

    @property
    def logits(self) -> int:
        return self.picked * self.model.padded_vocab_size // self.layout.tensor * self.width


def transformer_activations(model: TransformerConfig, work: Workload) -> Activations:
    """What one micro-batch keeps.

    On a CPU some kernels keep more: RMSNorm is made of parts, dropout's masks have the width of a number, and attention
    with dropout writes its weights out.
    """
    sizes, kind = _Sizes(model, work), work.recomputation
    whole, selective = _block(sizes), _block(sizes, selective=True)
    kept = {"none": whole, "selective": selective, "full": sizes.stream}[kind]
    return Activations(
        blocks={"layers": kept},
        repeated={"none": 0, "selective": _attention(sizes) - sizes.queries + sizes.features, "full": whole}[kind],
        stem=_stem(sizes),
        head=_head(sizes),
        logits=sizes.logits * (2 if model.logit_soft_cap is not None else 1),
        loss=sizes.logits + _loss_working_space(sizes),
        backward=(3 if model.gated else 2) * sizes.features + 2 * sizes.stream,
        stream=sizes.stream,
        constants=_constants(sizes),
    )


def _block(sizes: _Sizes, selective: bool = False) -> int:
    """Two norms, each with what it reads and makes; attention; the MLP."""
    model = sizes.model
    streams = 3 if model.parallel_residual else 4
    norms = streams * sizes.stream + 2 * _norm_extra(sizes, sizes.stream_tokens, model.hidden_size)
    dropout = 2 * _mask(sizes, sizes.stream) if model.hidden_dropout > 0 else 0
    inside = _projections(sizes) + _attention(sizes) if not selective else _projected(sizes) + sizes.queries
    return norms + dropout + inside + _mlp(sizes, selective)


def _norm_extra(sizes: _Sizes, rows: int, features: int) -> int:
    """What a norm keeps beside its input and its output: statistics; on a CPU RMSNorm's own products."""
    model = sizes.model
    statistics = FP32 if sizes.device == "cuda" else sizes.width
    if model.norm == "layernorm":
        return 2 * rows * statistics
    if sizes.device == "cuda":
        return rows * FP32
    # fp32 copies of input and product; in fp32 the input needs no copy
    copies = 1 if sizes.width == FP32 else 2
    of_input = 0 if sizes.width == FP32 else rows * features * sizes.width  # which the copy stands for
    return rows * FP32 + copies * rows * features * FP32 - of_input


def _mask(sizes: _Sizes, size: int) -> int:
    return size // sizes.width if sizes.device == "cuda" else size


def _projected(sizes: _Sizes) -> int:
    """Queries, keys and values as the matrices make them.

    Where ranks share a group they make keys and values of all of them, and under sequence parallelism keep the tokens
    that they gathered for it.
    """
    model = sizes.model
    if model.groups >= sizes.layout.tensor:
        return sizes.queries + 2 * sizes.keys
    keys = sizes.tokens * model.groups * model.head_size * sizes.width
    gathered = sizes.tokens * model.hidden_size * sizes.width if sizes.layout.sequence_parallel else 0
    return sizes.queries + 2 * keys + gathered


def _projections(sizes: _Sizes) -> int:
    """What is kept of queries, keys and values: as made, and as normed or turned."""
    model = sizes.model
    grouped = model.groups < model.attention_heads
    turned = isinstance(model.position_embedding, RotaryPositionConfig)
    remade = sizes.queries + sizes.keys if turned or model.query_key_norm else 0
    # a matrix of queries alone is let go of once they are turned; the fused one stays for its values
    gone = sizes.queries if turned and grouped and not model.query_key_norm else 0
    norms = 0
    if model.query_key_norm:
        rows = sizes.tokens * (sizes.heads + sizes.groups)
        norms = _norm_extra(sizes, rows, model.head_size)
    return _projected(sizes) + remade - gone + norms + _angles(sizes)


def _angles(sizes: _Sizes) -> int:
    """Cosines and sines, which each layer makes."""
    position = sizes.model.position_embedding
    if not isinstance(position, RotaryPositionConfig):
        return 0
    rows = sizes.positions * (sizes.micro_batch if sizes.work.inputs.has(POSITIONS) else 1)
    return rows * position.rotated_features(sizes.model.head_size) * sizes.width


def _attention(sizes: _Sizes) -> int:
    """From queries, keys and values on: what the kernel keeps, and what the output matrix reads."""
    model = sizes.model
    remade = model.query_key_norm or isinstance(model.position_embedding, RotaryPositionConfig)
    drops = model.attention_dropout > 0
    if sizes.work.training.attention_kernel == "math" or (drops and sizes.device == "cpu"):
        weights = sizes.tokens * sizes.heads * sizes.positions * sizes.width
        return (
            (3 if drops else 1) * weights + 2 * sizes.queries + sizes.queries
        )  # scaled queries and keys, and the result
    if _has_a_call_for_each_segment(sizes):
        copies = True  # each segment's own result, and all of them in one tensor
    else:
        # On a GPU the result's positions lie batch first and are copied; on a CPU they lie as the queries do.
        copies = sizes.micro_batch > 1 if sizes.device == "cuda" else remade
    kept = sizes.queries * (2 if copies else 1) + sizes.tokens * sizes.heads * FP32
    return kept + _mask_of_ranges(sizes) - _let_go_of_by_packing(sizes)


def _has_segments(sizes: _Sizes) -> bool:
    return sizes.work.inputs.attention in ("documents", "causal_documents")


def _has_a_call_for_each_segment(sizes: _Sizes) -> bool:
    """Where no kernel takes all segments together, as `models/attention/kernel_choice.py` has it; of a GPU without
    such a kernel for 16 bits a little less is counted than it keeps."""
    model, kernel = sizes.model, sizes.work.training.attention_kernel
    needs_scores = model.attention_dropout > 0 or model.position_embedding.name == "alibi"
    together = sizes.device == "cuda" and sizes.width < FP32 and not needs_scores and kernel in ("auto", "flash")
    return _has_segments(sizes) and not together and kernel != "flash_attn"


def _let_go_of_by_packing(sizes: _Sizes) -> int:
    """The tokens of several samples are copied into one row, values too: what they were a view of is let go of, unless
    a norm of queries and keys needs it, beside which it is kept then."""
    if not _has_segments(sizes) or sizes.micro_batch == 1:
        return 0
    if sizes.model.query_key_norm:
        return -sizes.keys
    if not isinstance(sizes.model.position_embedding, RotaryPositionConfig):
        return 0
    fused = sizes.model.groups == sizes.model.attention_heads
    return (sizes.queries if fused else 0) + sizes.keys


def _mask_of_ranges(sizes: _Sizes) -> int:
    """What each layer keeps where tokens see a range of keys each; ALiBi's bias of other patterns is one for all."""
    if sizes.work.inputs.attention != "ranges":
        return 0
    pairs = sizes.tokens * sizes.positions
    return pairs * sizes.heads * sizes.width if sizes.model.position_embedding.name == "alibi" else pairs


def _mlp(sizes: _Sizes, selective: bool) -> int:
    """What the activation reads and makes, and the product of a gated one."""
    activation = sizes.model.activation
    if selective:
        return sizes.features * (2 if sizes.model.gated else 1)
    kept = {"relu": 1, "gelu": 2, "gelu_tanh": 2, "liglu": 3}.get(activation, 4)
    return sizes.features * kept


def _stem(sizes: _Sizes) -> int:
    model = sizes.model
    ids = sizes.tokens * INT64 * (2 if sizes.layout.tensor > 1 else 1)  # shifted to this rank's rows beside as they are
    norm = sizes.stream + _norm_extra(sizes, sizes.stream_tokens, model.hidden_size) if model.embedding_norm else 0
    return ids + norm + (_mask(sizes, sizes.stream) if model.dropout_of_embedding > 0 else 0)


def _head(sizes: _Sizes) -> int:
    """The last block's output, what the head reads, labels and weights, and four vectors of the loss.

    Where places are picked, the head reads the features of these alone.
    """
    model, layout = sizes.model, sizes.layout
    whole = sizes.tokens * model.hidden_size * sizes.width
    reads = whole if model.tied_head and layout.tensor > 1 else sizes.stream
    if sizes.work.inputs.has(PICKED):
        reads = (INT64 + model.hidden_size * sizes.width) * sizes.picked
    norm = _norm_extra(sizes, sizes.stream_tokens, model.hidden_size)
    before = sizes.stream + norm if model.norm_placement == "pre" else 0
    return before + reads + sizes.picked * (INT64 + FP32 + INT64 + 1 + 2 * FP32)


def _loss_working_space(sizes: _Sizes) -> int:
    if sizes.width == FP32:
        return 0
    return FP32 * min(LOSS_ELEMENTS_AT_ONCE[sizes.device], sizes.logits // sizes.width)


def _constants(sizes: _Sizes) -> int:
    """ALiBi's bias, one tensor for all layers but those whose tokens see a range of keys each."""
    if sizes.model.position_embedding.name != "alibi" or sizes.work.inputs.attention == "ranges":
        return 0
    return sizes.heads * sizes.positions**2 * sizes.width
