"""Normalisation of the residual stream."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.parallel.parameters import ParameterInfo, describe
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.tensor_slice import TensorSlice


class LayerNorm(nn.Module):
    """Ba, Kiros and Hinton 2016, over the last dimension; every tensor-parallel rank computes all of it."""

    def __init__(self, features: int, epsilon: float, groups: ProcessGroups) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(features, dtype=groups.dtype))
        self.bias = nn.Parameter(torch.empty(features, dtype=groups.dtype))
        describe(self.weight, ParameterInfo(TensorSlice.whole((features,)), "ones"))
        describe(self.bias, ParameterInfo(TensorSlice.whole((features,)), "zeros"))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)
