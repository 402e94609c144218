"""The GPT family as a list of layers: embedding, positions, blocks, final norm, head."""

from collections.abc import Iterator

from megatron_patches.models.block import Block
from megatron_patches.models.dropout import FeatureDropout
from megatron_patches.models.embedding import OutputHead, TokenEmbedding, tied_head
from megatron_patches.models.layer_spec import LayerSpec
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.normalization import build_stream_norm
from megatron_patches.models.position import PositionEmbedding, build_position_embedding
from megatron_patches.models.recomputation import Recomputation
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


def gpt_layers(
    config: ModelConfig,
    sequence_length: int,
    groups: ProcessGroups,
    randomness: StepRandomness,
    recomputation: Recomputation = "none",
) -> list[LayerSpec]:
    """The layers of a GPT (Radford et al. 2019) or of a descendant, first to last; nothing is built yet."""
    position = build_position_embedding(config, sequence_length, groups)

    def block() -> Block:
        return Block(config, position, groups, randomness, recomputation)

    blocks = [LayerSpec(f"layers.{index}", block, is_block=True, reads_context=True) for index in range(config.layers)]
    first, last = _ends(config, groups)
    return [first, *_stem(config, position, groups, randomness), *blocks, *_final_norm(config, groups), last]


def _ends(config: ModelConfig, groups: ProcessGroups) -> tuple[LayerSpec, LayerSpec]:
    """Embedding and head, with one weight or two."""

    def embedding() -> TokenEmbedding:
        return TokenEmbedding(config, groups)

    if not config.tied_head:
        head = LayerSpec("head", lambda: OutputHead(config, groups))
        return LayerSpec("embedding", embedding), head
    weight = "tokens.table.weight"
    return (
        LayerSpec("embedding", embedding, shared_weight=weight),
        LayerSpec("embedding", embedding, shared_weight=weight, forward=tied_head(config)),
    )


def _stem(
    config: ModelConfig, position: PositionEmbedding, groups: ProcessGroups, randomness: StepRandomness
) -> Iterator[LayerSpec]:
    """What is between the embedding and the first block.

    The embedded tokens are normalised before positions are added, as BigScience's Megatron-DeepSpeed does it within
    its embedding layer; BLOOM, with ALiBi, has nothing to add.
    """
    if config.embedding_norm:
        yield LayerSpec("embedding_norm", lambda: build_stream_norm(config, groups))
    build_positions = position.stream_layer()
    if build_positions is not None:
        yield LayerSpec("positions", build_positions, reads_context=True)
    share = config.dropout_of_embedding
    if share > 0:
        yield LayerSpec("embedding_dropout", lambda: FeatureDropout(share, groups, randomness))


def _final_norm(config: ModelConfig, groups: ProcessGroups) -> Iterator[LayerSpec]:
    """Of a post-norm model the last block's output is normalised already."""
    if config.norm_placement == "pre":
        yield LayerSpec("final_norm", lambda: build_stream_norm(config, groups))
