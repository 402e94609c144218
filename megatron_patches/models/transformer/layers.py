"""A GPT or an encoder as a list of layers: embedding, positions, blocks, final norm, head."""

from collections.abc import Iterator

from torch import Tensor, nn

from megatron_patches.batch.fields import PICKED, TOKENS, ModelInputs
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.interface.layer_spec import HIDDEN, LOGITS, LayerForward, LayerSpec
from megatron_patches.models.layers.block import Block
from megatron_patches.models.layers.dropout import FeatureDropout
from megatron_patches.models.layers.embedding import HeadBias, OutputHead, TokenEmbedding, tied_head
from megatron_patches.models.layers.normalization import build_stream_norm
from megatron_patches.models.layers.position import PositionEmbedding, build_position_embedding
from megatron_patches.models.layers.token_context import ContextReader
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


def transformer_layers(
    config: TransformerConfig,
    positions: int,
    inputs: ModelInputs,
    groups: ProcessGroups,
    randomness: StepRandomness,
    recomputation: Recomputation = "none",
    head_bias: bool = False,
) -> list[LayerSpec]:
    """The layers of a GPT (Radford et al. 2019), of a descendant or of an encoder, first to last; nothing is built yet.

    Where the inputs have places that are picked, the logits are those of these places.
    """
    position = build_position_embedding(config, positions, inputs.attention, groups)
    context = ContextReader(inputs)

    def block() -> Block:
        return Block(config, position, groups, randomness, recomputation)

    reads = (HIDDEN.name, *context.names)
    blocks = [
        LayerSpec(f"layers.{index}", block, reads, forward=_with_context(context)) for index in range(config.layers)
    ]
    first, last = _ends(config, groups, inputs)
    bias = [LayerSpec("head_bias", lambda: HeadBias(config, groups), (LOGITS.name,), LOGITS)] if head_bias else []
    stem = _stem(config, position, context, groups, randomness)
    return [first, *stem, *blocks, *_final_norm(config, groups), last, *bias]


def _with_context(reader: ContextReader) -> LayerForward:
    """Calls a layer with the stream and with what its tokens know."""

    def run(layer: nn.Module, hidden: Tensor, *tensors: Tensor) -> Tensor:
        output: Tensor = layer(hidden, reader.read(tensors, layer))
        return output

    return run


def _ends(config: TransformerConfig, groups: ProcessGroups, inputs: ModelInputs) -> tuple[LayerSpec, LayerSpec]:
    """Embedding and head, with one weight or two."""

    def embedding() -> TokenEmbedding:
        return TokenEmbedding(config, groups)

    reads = (TOKENS.name,)
    head_reads = (HIDDEN.name, *([PICKED.name] if inputs.has(PICKED) else []))
    if not config.tied_head:
        head = LayerSpec("head", lambda: OutputHead(config, groups), head_reads, LOGITS)
        return LayerSpec("embedding", embedding, reads), head
    weight = "tokens.table.weight"
    return (
        LayerSpec("embedding", embedding, reads, shared_weight=weight),
        LayerSpec("embedding", embedding, head_reads, LOGITS, shared_weight=weight, forward=tied_head(config)),
    )


def _stem(
    config: TransformerConfig,
    position: PositionEmbedding,
    context: ContextReader,
    groups: ProcessGroups,
    randomness: StepRandomness,
) -> Iterator[LayerSpec]:
    """What is between the embedding and the first block.

    The embedded tokens are normalised before positions are added, as BigScience's Megatron-DeepSpeed does it within
    its embedding layer; BLOOM, with ALiBi, has nothing to add.
    """
    if config.embedding_norm:
        yield LayerSpec("embedding_norm", lambda: build_stream_norm(config, groups))
    build_positions = position.stream_layer()
    if build_positions is not None:
        reads = (HIDDEN.name, *context.names)
        yield LayerSpec("positions", build_positions, reads, forward=_with_context(context))
    share = config.dropout_of_embedding
    if share > 0:
        yield LayerSpec("embedding_dropout", lambda: FeatureDropout(share, groups, randomness))


def _final_norm(config: TransformerConfig, groups: ProcessGroups) -> Iterator[LayerSpec]:
    """Of a post-norm model the last block's output is normalised already."""
    if config.norm_placement == "pre":
        yield LayerSpec("final_norm", lambda: build_stream_norm(config, groups))
