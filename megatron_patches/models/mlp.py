"""The two matrices of a block's MLP; the tensor-parallel ranks share the features between them."""

from torch import Tensor, nn

from megatron_patches.models.activation import ACTIVATIONS
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.parallel.layers import SplitInput, SplitOutput
from megatron_patches.parallel.process_groups import ProcessGroups


class MLP(nn.Module):
    """`[..., hidden] -> [..., hidden]`."""

    def __init__(self, config: ModelConfig, groups: ProcessGroups, residual_deviation: float) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = SplitOutput(config.hidden_size, config.ffn_size, groups, deviation=config.init_std)
        self.down = SplitInput(config.ffn_size, config.hidden_size, groups, deviation=residual_deviation)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down(self.activation(self.up(hidden)))
