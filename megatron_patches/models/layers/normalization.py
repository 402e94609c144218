"""Normalisation of the residual stream, and of the queries and keys of a head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.process_groups import ProcessGroups


class LayerNorm(nn.Module):
    """Ba, Kiros and Hinton 2016, over the last dimension; the bias may be left out."""

    def __init__(self, features: int, epsilon: float, dtype: torch.dtype, bias: bool) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(features, dtype=dtype)) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, over the last dimension."""

    def __init__(self, features: int, epsilon: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(features, dtype=dtype))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.epsilon)


def build_stream_norm(config: TransformerConfig, groups: ProcessGroups) -> nn.Module:
    """The run's norm for `[tokens, batch, hidden]`.

    Every tensor-parallel rank computes all of it; under sequence parallelism each sees its own tokens only.
    """
    return _build_norm(config.hidden_size, config, groups)


def build_head_norm(config: TransformerConfig, groups: ProcessGroups) -> nn.Module:
    """The run's norm for `[..., head_size]`: all heads share one, and each tensor-parallel rank sees its own heads."""
    return _build_norm(config.head_size, config, groups)


def _build_norm(features: int, config: TransformerConfig, groups: ProcessGroups) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(features, config.norm_epsilon, groups.dtype)
    return LayerNorm(features, config.norm_epsilon, groups.dtype, config.norm_bias)
