"""Steps of an optimizer on parameters that are cut as tensor parallelism and ZeRO cut them, without DeepSpeed."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron_patches.optim.build import allocate_state, build_optimizer
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer
from megatron_patches.parameters.info import ParameterInfo, describe
from megatron_patches.parameters.tensor_slice import TensorSlice
from tests.small_rows import row

STEPS = 3


@dataclass(frozen=True)
class Shape:
    """A parameter: its global shape, the dimension that tensor ranks share, the one that counts matrices."""

    shape: tuple[int, ...]
    cut: int | None = None
    stack: int | None = None
    vector: bool = False


SHAPES = {
    "embedding.tokens.table.weight": Shape((22, 8), cut=0),
    "layers.0.attention_norm.weight": Shape((8,), vector=True),
    "layers.0.attention.query_key_value.linear.weight": Shape((4, 3, 2, 8), cut=0, stack=1),
    "layers.0.attention.query_key_value.linear.bias": Shape((4, 3, 2), cut=0, vector=True),
    "layers.0.attention.key_value.linear.weight": Shape((1, 2, 3, 8), stack=1),
    "layers.0.mlp.up.linear.weight": Shape((2, 10, 8), cut=1, stack=0),
    "layers.0.mlp.down.linear.weight": Shape((8, 10), cut=1),
    "layers.0.mlp.down.linear.bias": Shape((8,), vector=True),
}


@dataclass(frozen=True)
class Cut:
    """Tensor x data ranks, and whether the data ranks share the optimizer's state."""

    tensor: int = 1
    data: int = 1
    zero: bool = False


Values = dict[tuple[str, str], tuple[TensorSlice, int, np.ndarray]]
"""(name, kind) -> box, first element, elements; arrays, since a tensor's memory dies with its process"""


def whole(name: str, what: int) -> Tensor:
    """The whole tensor of a parameter's values (0) or of its gradient in step 1, 2, ..."""
    seed = sorted(SHAPES).index(name) * 100 + what
    drawn = torch.randn(SHAPES[name].shape, generator=torch.Generator().manual_seed(seed))
    return drawn if what else drawn * 0.1


def box_of(name: str, tensor_rank: int, cut: Cut) -> TensorSlice:
    shape = SHAPES[name]
    if shape.cut is None:
        return TensorSlice.whole(shape.shape)
    return TensorSlice.cut(shape.shape, shape.cut, tensor_rank, cut.tensor)


def local(name: str, what: int, box: TensorSlice) -> Tensor:
    """A rank's part, in the shape that a layer gives it."""
    part = _part(whole(name, what), box)
    return part.flatten() if SHAPES[name].vector else part.reshape(-1, part.shape[-1])


def _part(tensor: Tensor, box: TensorSlice) -> Tensor:
    return tensor[tuple(slice(low, high) for low, high in box.box)].contiguous()


def steps_of(config: OptimizerConfig, cut: Cut, skipped: frozenset[int] = frozenset()) -> Values:
    """Three steps on this rank; what it holds of parameters and moments then. `skipped` steps have NaN gradients."""
    rank = dist.get_rank()
    data_rank, tensor_rank = divmod(rank, cut.tensor)
    boxes = {name: box_of(name, tensor_rank, cut) for name in SHAPES}
    parameters = {name: nn.Parameter(local(name, 0, box)) for name, box in boxes.items()}
    for name, box in boxes.items():
        shape = SHAPES[name]
        described = row(name, shape.shape, matrix=not shape.vector, fused=shape.stack)
        describe(parameters[name], ParameterInfo(described, box, tensor_replicated=shape.cut is None))
    optimizer = build_optimizer(config, parameters)
    fragments = list(_fragments(optimizer, parameters, cut, data_rank, tensor_rank))
    if isinstance(optimizer, SlicedOptimizer):
        groups = SimpleNamespace(device=torch.device("cpu"), stage_group=dist.group.WORLD)
        optimizer.bind(fragments, groups)  # type: ignore[arg-type]
    allocate_state(optimizer)
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * step
            for tensor in group["params"]:
                tensor.grad = torch.zeros_like(tensor)
        for fragment in fragments:
            gradient = local(fragment.name, step, fragment.info.slice).flatten()
            gradient = gradient[fragment.start : fragment.start + fragment.elements]
            assert fragment.tensor.grad is not None
            into = fragment.tensor.grad.view(-1)[fragment.offset : fragment.offset + fragment.elements]
            into.copy_(gradient * torch.nan if step in skipped else gradient)
        optimizer.found_inf = torch.tensor(float(step in skipped))  # type: ignore[attr-defined]
        _step(optimizer, cut)
    return dict(_held(optimizer, fragments))


def _step(optimizer: Optimizer, cut: Cut) -> None:
    if not cut.zero:
        optimizer.step()
        return
    groups = optimizer.param_groups
    for group in groups:  # as DeepSpeed does
        optimizer.param_groups = [group]
        optimizer.step()
    optimizer.param_groups = groups


def _fragments(
    optimizer: Optimizer, parameters: dict[str, nn.Parameter], cut: Cut, data_rank: int, tensor_rank: int
) -> Iterator[Fragment]:
    for group in optimizer.param_groups:
        partition, size = None, 0
        if cut.zero:
            flat = torch.cat([parameters[name].detach().flatten() for name in group["names"]])
            size = -(-flat.numel() // cut.data)
            flat = torch.cat([flat, torch.zeros(size * cut.data - flat.numel())])
            partition = flat[data_rank * size : (data_rank + 1) * size].clone().requires_grad_()
            group["params"] = [partition]
        place = -data_rank * size
        for name in group["names"]:
            parameter, elements = parameters[name], parameters[name].numel()
            first_copy = tensor_rank == 0 or SHAPES[name].cut is not None
            info = parameter.trainyard_info  # type: ignore[attr-defined]
            if partition is None:
                yield Fragment(name, info, parameter, 0, 0, elements, first_copy and data_rank == 0)
            else:
                low, high = max(place, 0), min(place + elements, size)
                if low < high:
                    yield Fragment(name, info, partition, low, low - place, high - low, first_copy)
            place += elements


def _held(optimizer: Optimizer, fragments: list[Fragment]) -> Iterator[tuple[tuple[str, str], Any]]:
    for fragment in fragments:
        state = optimizer.state[fragment.tensor]
        tensors = {"value": fragment.tensor} | {kind: value for kind, value in state.items() if kind != "step"}
        for kind, tensor in tensors.items():
            flat = tensor.detach().view(-1)[fragment.offset : fragment.offset + fragment.elements].clone().numpy()
            yield (fragment.name, kind), (fragment.info.slice, fragment.start, flat)
        if "step" in state:
            yield (fragment.name, "step"), (TensorSlice.whole((1,)), 0, state["step"].clone().view(1).numpy())
    if isinstance(optimizer, SlicedOptimizer):
        for piece in optimizer.state_pieces():
            yield (piece.name, piece.kind), (piece.slice, piece.start, piece.tensor.clone().numpy())


def assemble(ranks: list[Values]) -> dict[tuple[str, str], Tensor]:
    """The whole tensors from what ranks hold; ranks that hold the same must agree to the bit."""
    found: dict[tuple[str, str], Tensor] = {}
    for values in ranks:
        for key, (box, start, array) in values.items():
            flat = torch.from_numpy(array)
            into = found.setdefault(key, torch.full(box.global_shape, torch.nan))
            places = _part(torch.arange(into.numel()).view(box.global_shape), box).flatten()[start : start + len(flat)]
            before = into.view(-1)[places]
            assert torch.equal(before[~before.isnan()], flat[~before.isnan()]), f"ranks disagree about {key}"
            into.view(-1)[places] = flat
    assert not any(tensor.isnan().any() for tensor in found.values())
    return found


def steps_on_a_rank(configs: list[OptimizerConfig], cut: Cut) -> list[Values]:
    """For `tests.ranks`."""
    dist.init_process_group("gloo")
    found = [steps_of(config, cut) for config in configs]
    dist.destroy_process_group()
    return found
