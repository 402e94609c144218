"""megatron-core's tensor-parallel layers; what is known of their parameters is in the architecture's table.

Under sequence parallelism (Korthikanti et al. 2022, section 4.2.2) what lies between two matrices holds only this
rank's tokens: `tokens` below is the sequence, or this rank's share of it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.parallel.fp8 import Fp8Linear, multiply_in_fp8
from megatron_patches.parallel.megatron_core import (
    ColumnParallelLinear,
    ModelParallelConfig,
    RowParallelLinear,
    VocabParallelEmbedding,
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron_patches.parallel.process_groups import ProcessGroups


def _leave_uninitialised(weight: Tensor) -> None:
    """megatron-core asks for an initialiser; ours runs later, by name (parameters.py)."""


def _core_config(groups: ProcessGroups) -> ModelParallelConfig:
    return ModelParallelConfig(
        tensor_model_parallel_size=groups.layout.tensor,
        sequence_parallel=groups.layout.sequence_parallel,
        params_dtype=groups.dtype,
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
    )


def whole_features(features: Tensor, groups: ProcessGroups) -> Tensor:
    """`[tokens, batch, features]` -> `[sequence, batch, features]`, for a layer of which each rank computes a part.

    Backward, the ranks' gradients are summed.
    """
    if groups.layout.sequence_parallel:
        return gather_from_sequence_parallel_region(
            features, tensor_parallel_output_grad=True, group=groups.tensor_group
        )
    return copy_to_tensor_model_parallel_region(features, group=groups.tensor_group)


def picked_features(features: Tensor, places: Tensor) -> Tensor:
    """`[sequence, batch, features]` -> `[picked, batch, features]` at places int64 `[batch, picked]`.

    Rows are selected, not gathered: a gather keeps all features for the backward pass, of which it reads the shape.
    """
    batch, picked = places.shape
    rows = places.t() * batch + torch.arange(batch, device=places.device)
    return features.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (picked, batch))


def _alone(inputs: int, outputs: int, groups: ProcessGroups, bias: bool, exact: bool = False) -> Any:
    """A matrix shared with nobody is torch's own layer, which torch.compile takes whole."""
    kind = nn.Linear if exact or groups.kernels.fp8 == "none" else Fp8Linear
    return torch.nn.utils.skip_init(kind, inputs, outputs, bias=bias, dtype=groups.dtype)


def _shared(linear: Any, groups: ProcessGroups, exact: bool = False) -> Any:
    """megatron-core's layer, with the product that the run asks for.

    Its messages go between compiled pieces: Dynamo takes no asynchronous collective.
    """
    linear.outside_graphs = ("forward",)
    if not exact and groups.kernels.fp8 != "none":
        multiply_in_fp8(linear, groups.tensor_group)
    return linear


def _apply(linear: nn.Module, features: Tensor) -> Tensor:
    """The layer and its bias, which megatron-core leaves to us: with a frozen weight it would give it no gradient."""
    if isinstance(linear, nn.Linear):
        return linear(features)
    output, bias = linear(features)
    return output if bias is None else output + bias


class ColumnParallel(nn.Module):
    """A linear layer whose output features are shared by the tensor-parallel ranks (megatron-core's column parallel).

    `[tokens, batch, inputs] -> [sequence, batch, outputs / tensor]`, or of picked places alone, int64
    `[batch, picked]` of the sequence, `[picked, batch, outputs / tensor]`. Which of the outputs a rank has is its
    parameter's slice. An `exact` one is multiplied in the type of its weights whatever the run says of float8.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: ProcessGroups, *, bias: bool = True, exact: bool = False
    ) -> None:
        super().__init__()
        self.groups = groups
        self.linear: Any
        if groups.layout.tensor == 1:
            self.linear = _alone(inputs, outputs, groups, bias, exact)
        else:
            column = ColumnParallelLinear(
                inputs, outputs, config=_core_config(groups), init_method=_leave_uninitialised, bias=bias,
                gather_output=False, skip_bias_add=True, tp_group=groups.tensor_group,
            )  # fmt: skip
            self.linear = _shared(column, groups, exact)

    def forward(self, features: Tensor, picked: Tensor | None = None) -> Tensor:
        if picked is None:
            return _apply(self.linear, features)
        if isinstance(self.linear, nn.Linear):
            return self.linear(picked_features(features, picked))
        whole = whole_features(features, self.groups)  # megatron-core's layer would gather what was picked
        return F.linear(picked_features(whole, picked), self.linear.weight, self.linear.bias)


class Replicated(nn.Module):
    """A linear layer that every tensor-parallel rank computes whole, to use a part of it.

    `[tokens, batch, inputs] -> [sequence, batch, outputs]`. For keys and values of fewer heads than ranks.
    """

    outside_graphs = ("_whole",)

    def __init__(self, inputs: int, outputs: int, groups: ProcessGroups, *, bias: bool = True) -> None:
        super().__init__()
        self.groups = groups
        self.linear = _alone(inputs, outputs, groups, bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self._whole(features))

    def _whole(self, features: Tensor) -> Tensor:
        return whole_features(features, self.groups)


class RowParallel(nn.Module):
    """A linear layer whose input features are shared by the tensor-parallel ranks (megatron-core's row parallel).

    `[sequence, batch, inputs / tensor] -> [tokens, batch, outputs]`, summed over the tensor-parallel ranks; the bias is
    added once.
    """

    def __init__(self, inputs: int, outputs: int, groups: ProcessGroups, *, bias: bool = True) -> None:
        super().__init__()
        self.linear: Any
        if groups.layout.tensor == 1:
            self.linear = _alone(inputs, outputs, groups, bias)
        else:
            row = RowParallelLinear(
                inputs, outputs, config=_core_config(groups), init_method=_leave_uninitialised, bias=bias,
                input_is_parallel=True, skip_bias_add=True, tp_group=groups.tensor_group,
            )  # fmt: skip
            self.linear = _shared(row, groups)

    def forward(self, features: Tensor) -> Tensor:
        return _apply(self.linear, features)


class ParallelEmbedding(nn.Module):
    """A table whose rows the tensor-parallel ranks share: ids `[batch, sequence]` -> `[tokens, batch, features]`.

    It is the output matrix too, where a model ties them.
    """

    def __init__(self, rows: int, features: int, groups: ProcessGroups) -> None:
        super().__init__()
        self.groups = groups
        self.table = VocabParallelEmbedding(
            rows, features, config=_core_config(groups), init_method=_leave_uninitialised,
            reduce_scatter_embeddings=groups.layout.sequence_parallel, tp_group=groups.tensor_group,
        )  # fmt: skip

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.table(ids)
        return embedded if self.groups.layout.sequence_parallel else embedded.transpose(0, 1).contiguous()

    def logits(self, features: Tensor, picked: Tensor | None = None) -> Tensor:
        """`[tokens, batch, features] -> [sequence, batch, rows / tensor]`, or `[picked, batch, rows / tensor]`."""
        whole = whole_features(features, self.groups)
        return F.linear(whole if picked is None else picked_features(whole, picked), self.table.weight)
