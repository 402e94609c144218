"""The matrices of a block's MLP; the tensor-parallel ranks share the features between them."""

import torch
from torch import Tensor, nn

from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.models.layers.activation import ACTIVATIONS
from megatron_patches.models.layers.recomputation import recomputed, without_keeping
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.parallel.layers import ColumnParallel, RowParallel
from megatron_patches.parallel.process_groups import ProcessGroups


class MLP(nn.Module):
    """`[tokens, batch, hidden]` -> the same.

    A gated MLP's two input matrices are one of shape (2, ffn, hidden), cut along the features, so that a rank has both
    halves of its features; the first half is activated and multiplies the second.
    """

    outside_graphs = ("_finish_without_keeping",)

    def __init__(self, config: TransformerConfig, groups: ProcessGroups, recomputation: Recomputation) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.gated = config.gated
        self.recomputes = recomputation == "selective"
        up = (2 if config.gated else 1) * config.mlp_width
        self.up = ColumnParallel(config.hidden_size, up, groups, bias=config.mlp_bias)
        self.down = RowParallel(config.mlp_width, config.hidden_size, groups, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        features = self.up(hidden)
        if not (self.recomputes and torch.is_grad_enabled()):
            return self._finish(features)
        if torch.compiler.is_compiling() and isinstance(self.down.linear, nn.Linear):
            # The compiler repeats only what is needed: not the matrix. One that is shared is no part of its graph.
            return recomputed(self._finish, features, draws=False)
        return self._finish_without_keeping(recomputed(self._activate, features, draws=False), features)

    def _finish(self, features: Tensor) -> Tensor:
        return self.down(self._activate(features))

    def _finish_without_keeping(self, activated: Tensor, features: Tensor) -> Tensor:
        with without_keeping(activated, features, self._activate):
            return self.down(activated)

    def _activate(self, features: Tensor) -> Tensor:
        if not self.gated:
            return self.activation(features)
        gate, value = features.chunk(2, dim=-1)
        return self.activation(gate) * value
