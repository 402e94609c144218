"""Tokens in, logits out."""

import torch.nn.functional as F
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region
from torch import Tensor, nn

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.parallel.layers import SplitEmbedding, SplitOutput
from megatron_patches.parallel.process_groups import ProcessGroups


class TokenEmbedding(nn.Module):
    """ids `[batch, sequence]` -> `[sequence, batch, hidden]`."""

    def __init__(self, config: ModelConfig, groups: ProcessGroups) -> None:
        super().__init__()
        self.groups = groups
        self.tokens = SplitEmbedding(config.vocab_size, config.hidden_size, groups, deviation=config.init_std)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids).transpose(0, 1).contiguous()


def tied_logits(embedding: nn.Module, hidden: Tensor) -> Tensor:
    """`[sequence, batch, hidden] -> [sequence, batch, vocabulary / tensor]` by the token embedding's own rows."""
    assert isinstance(embedding, TokenEmbedding)
    shared = copy_to_tensor_model_parallel_region(hidden, group=embedding.groups.tensor_group)
    return F.linear(shared, embedding.tokens.weight)


class OutputHead(nn.Module):
    """`[sequence, batch, hidden] -> [sequence, batch, vocabulary / tensor]` by a matrix of its own."""

    def __init__(self, config: ModelConfig, groups: ProcessGroups) -> None:
        super().__init__()
        self.logits = SplitOutput(config.hidden_size, config.vocab_size, groups, deviation=config.init_std, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.logits(hidden)


class FeatureDropout(nn.Module):
    """Dropout of features that every tensor-parallel rank holds, the same on each."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.share, self.training) if self.training and self.share > 0 else hidden
