"""The GPT family as a list of layers: embedding, positions, pre-norm blocks, final norm, head."""

from math import sqrt

from torch import Tensor, nn

from megatron_patches.models.attention import CausalSelfAttention
from megatron_patches.models.embedding import FeatureDropout, OutputHead, TokenEmbedding, tied_logits
from megatron_patches.models.layer_spec import LayerSpec
from megatron_patches.models.mlp import MLP
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.normalization import LayerNorm
from megatron_patches.models.position import PositionEmbedding, build_position_embedding
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness


def gpt_layers(
    config: ModelConfig, sequence_length: int, groups: ProcessGroups, randomness: StepRandomness
) -> list[LayerSpec]:
    """The layers of a GPT (Radford et al. 2019), first to last; nothing is built yet."""
    embedding = LayerSpec("embedding", lambda: TokenEmbedding(config, groups))
    head = LayerSpec("head", lambda: OutputHead(config, groups))
    if config.tied_head:
        embedding = LayerSpec("embedding", embedding.build, shared_weight="tokens.weight")
        head = LayerSpec("embedding", embedding.build, shared_weight="tokens.weight", forward=tied_logits)

    position = build_position_embedding(
        config.position_embedding, config.hidden_size, config.init_std, sequence_length, groups
    )
    specs = [embedding, LayerSpec("positions", lambda: position.stream_layer() or nn.Identity())]
    if config.hidden_dropout > 0:
        specs.append(LayerSpec("embedding_dropout", lambda: FeatureDropout(config.hidden_dropout)))
    for index in range(config.layers):
        specs.append(LayerSpec(f"layers.{index}", lambda: Block(config, position, groups, randomness), is_block=True))
    specs.append(LayerSpec("final_norm", lambda: LayerNorm(config.hidden_size, config.norm_epsilon, groups)))
    return [*specs, head]


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy of the residual stream: `[sequence, batch, hidden]` -> the same."""

    def __init__(
        self, config: ModelConfig, position: PositionEmbedding, groups: ProcessGroups, randomness: StepRandomness
    ) -> None:
        super().__init__()
        # Radford et al. 2019, section 2.3: the stream is a sum of 2 * layers terms, so each is drawn smaller.
        scale = 1 / sqrt(2 * config.layers) if config.init_residual_scaling else 1.0
        self.attention_norm = LayerNorm(config.hidden_size, config.norm_epsilon, groups)
        self.attention = CausalSelfAttention(config, position, groups, randomness, config.init_std * scale)
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_epsilon, groups)
        self.mlp = MLP(config, groups, config.init_std * scale)
        self.dropout = FeatureDropout(config.hidden_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden)))
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))
