"""The GPT family as a list of layers: embedding, positions, blocks, final norm, head."""

from collections.abc import Iterator

from torch import Tensor, nn

from megatron_patches.batch.fields import TOKENS, ModelInputs
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.interface.layer_spec import HIDDEN, LOGITS, LayerForward, LayerSpec
from megatron_patches.models.layers.block import Block
from megatron_patches.models.layers.dropout import FeatureDropout
from megatron_patches.models.layers.embedding import OutputHead, TokenEmbedding, tied_head
from megatron_patches.models.layers.model_config import ModelConfig
from megatron_patches.models.layers.normalization import build_stream_norm
from megatron_patches.models.layers.position import PositionEmbedding, build_position_embedding
from megatron_patches.models.layers.token_context import ContextReader
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


def gpt_layers(
    config: ModelConfig,
    positions: int,
    inputs: ModelInputs,
    groups: ProcessGroups,
    randomness: StepRandomness,
    recomputation: Recomputation = "none",
) -> list[LayerSpec]:
    """The layers of a GPT (Radford et al. 2019) or of a descendant, first to last; nothing is built yet."""
    position = build_position_embedding(config, positions, groups)
    context = ContextReader(inputs)

    def block() -> Block:
        return Block(config, position, groups, randomness, recomputation)

    reads = (HIDDEN.name, *context.names)
    blocks = [
        LayerSpec(f"layers.{index}", block, reads, forward=_with_context(context)) for index in range(config.layers)
    ]
    first, last = _ends(config, groups)
    stem = _stem(config, position, context, groups, randomness)
    return [first, *stem, *blocks, *_final_norm(config, groups), last]


def _with_context(reader: ContextReader) -> LayerForward:
    """Calls a layer with the stream and with what its tokens know."""

    def run(layer: nn.Module, hidden: Tensor, *tensors: Tensor) -> Tensor:
        output: Tensor = layer(hidden, reader.read(tensors))
        return output

    return run


def _ends(config: ModelConfig, groups: ProcessGroups) -> tuple[LayerSpec, LayerSpec]:
    """Embedding and head, with one weight or two."""

    def embedding() -> TokenEmbedding:
        return TokenEmbedding(config, groups)

    reads = (TOKENS.name,)
    if not config.tied_head:
        head = LayerSpec("head", lambda: OutputHead(config, groups), writes=LOGITS)
        return LayerSpec("embedding", embedding, reads), head
    weight = "tokens.table.weight"
    return (
        LayerSpec("embedding", embedding, reads, shared_weight=weight),
        LayerSpec("embedding", embedding, writes=LOGITS, shared_weight=weight, forward=tied_head(config)),
    )


def _stem(
    config: ModelConfig,
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


def _final_norm(config: ModelConfig, groups: ProcessGroups) -> Iterator[LayerSpec]:
    """Of a post-norm model the last block's output is normalised already."""
    if config.norm_placement == "pre":
        yield LayerSpec("final_norm", lambda: build_stream_norm(config, groups))
