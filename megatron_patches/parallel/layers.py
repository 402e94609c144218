"""megatron-core's tensor-parallel layers, each parameter described by its slice and its initial values."""

from megatron.core.model_parallel_config import ModelParallelConfig
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding
from torch import Tensor, nn

from megatron_patches.parallel.parameters import ParameterInfo, describe
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.tensor_slice import TensorSlice


def _leave_uninitialised(weight: Tensor) -> None:
    """megatron-core asks for an initialiser; ours runs later, by name (parameters.py)."""


def _core_config(groups: ProcessGroups) -> ModelParallelConfig:
    return ModelParallelConfig(
        tensor_model_parallel_size=groups.layout.tensor,
        params_dtype=groups.dtype,
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
    )


class SplitOutput(nn.Module):
    """A linear layer whose output features are shared by the tensor-parallel ranks (megatron-core's column parallel).

    `[..., inputs] -> [..., outputs / tensor]`.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: ProcessGroups, *, deviation: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.linear = ColumnParallelLinear(
            inputs, outputs, config=_core_config(groups), init_method=_leave_uninitialised, bias=bias,
            gather_output=False, tp_group=groups.tensor_group,
        )  # fmt: skip
        rank, size = groups.coordinates.tensor, groups.layout.tensor
        weight = TensorSlice.cut((outputs, inputs), 0, rank, size)
        describe(self.linear.weight, ParameterInfo(weight, "normal", deviation, tensor_replicated=False))
        if bias:
            describe(
                self.linear.bias,
                ParameterInfo(TensorSlice.cut((outputs,), 0, rank, size), "zeros", tensor_replicated=False),
            )

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)[0]


class SplitInput(nn.Module):
    """A linear layer whose input features are shared by the tensor-parallel ranks (megatron-core's row parallel).

    `[..., inputs / tensor] -> [..., outputs]`, summed over the tensor-parallel ranks; the bias is added once.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: ProcessGroups, *, deviation: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.linear = RowParallelLinear(
            inputs, outputs, config=_core_config(groups), init_method=_leave_uninitialised, bias=bias,
            input_is_parallel=True, skip_bias_add=False, tp_group=groups.tensor_group,
        )  # fmt: skip
        weight = TensorSlice.cut((outputs, inputs), 1, groups.coordinates.tensor, groups.layout.tensor)
        describe(self.linear.weight, ParameterInfo(weight, "normal", deviation, tensor_replicated=False))
        if bias:
            describe(self.linear.bias, ParameterInfo(TensorSlice.whole((outputs,)), "zeros"))

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)[0]


class SplitEmbedding(nn.Module):
    """A table whose rows are shared by the tensor-parallel ranks: ids `[...]` -> `[..., features]`."""

    def __init__(self, rows: int, features: int, groups: ProcessGroups, *, deviation: float) -> None:
        super().__init__()
        self.table = VocabParallelEmbedding(
            rows, features, config=_core_config(groups), init_method=_leave_uninitialised, tp_group=groups.tensor_group
        )
        rows_here = TensorSlice.cut((rows, features), 0, groups.coordinates.tensor, groups.layout.tensor)
        describe(self.table.weight, ParameterInfo(rows_here, "normal", deviation, tensor_replicated=False))

    @property
    def weight(self) -> nn.Parameter:
        """This rank's rows, `[rows / tensor, features]`."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)
