"""Parameter groups, moments that exist from the start, and fp32 masters."""

import pytest
import torch
from torch import nn

from megatron_patches.optim.build import allocate_state, build_optimizer
from megatron_patches.optim.master_weights import MasterWeights
from megatron_patches.optim.optimizer_config import AdamWConfig, OptimizerConfig, SGDConfig
from megatron_patches.parameters.info import describe
from tests.small_rows import whole_info

ADAMW = AdamWConfig(name="adamw", learning_rate=1e-2, weight_decay=0.5)
SGD = SGDConfig(name="sgd", learning_rate=0.1, weight_decay=0.5, momentum=0.9)

MATRIX, VECTOR = "layers.0.mlp.up.linear.weight", "layers.0.mlp.up.linear.bias"


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    shapes = {MATRIX: (4, 3), VECTOR: (3,)}
    found = {name: nn.Parameter(torch.randn(shape).to(dtype)) for name, shape in shapes.items()}
    for name, parameter in found.items():
        describe(parameter, whole_info(name, shapes[name], matrix=name == MATRIX))
    return found


@pytest.mark.parametrize("config", [ADAMW, SGD])
def test_matrices_decay_and_vectors_do_not(config: OptimizerConfig) -> None:
    values = parameters()
    optimizer = build_optimizer(config, values)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {id(values[MATRIX]): 0.5, id(values[VECTOR]): 0.0}


@pytest.mark.parametrize("config", [ADAMW, SGD, SGD.model_copy(update={"momentum": 0.0})])
def test_moments_of_zeros_give_the_updates_of_torch(config: OptimizerConfig) -> None:
    ours, theirs = parameters(), parameters()
    early, late = build_optimizer(config, ours), build_optimizer(config, theirs)
    allocate_state(early)
    held = {name for state in early.state.values() for name in state}
    for step in range(3):
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            a.grad = torch.full_like(a, 0.1 * (step + 1))
            b.grad = torch.full_like(b, 0.1 * (step + 1))
        early.step()
        late.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
    assert held == {name for state in early.state.values() for name in state}, "nothing is allocated later"


def test_masters_keep_updates_that_bf16_cannot_hold() -> None:
    weight = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    describe(weight, whole_info("weight", (2, 2)))
    weight.grad_dtype = torch.float32  # type: ignore[attr-defined]
    config = SGDConfig(name="sgd", learning_rate=1e-3)
    optimizer = MasterWeights(build_optimizer(config, {"weight": weight}))
    for _ in range(10):
        weight.grad = torch.ones(2, 2)
        optimizer.step()
    # bf16 has 8 bits: 1 - 0.001 is 1; ten such updates together are 0.99
    assert torch.equal(optimizer.masters[weight].detach().round(decimals=4), torch.full((2, 2), 0.99))
    assert torch.equal(weight.detach(), torch.full((2, 2), 0.99).bfloat16())


def test_a_flag_on_the_device_leaves_an_update_out() -> None:
    """What the engine relies on when a gradient is no number."""
    for config in (ADAMW, SGD):
        values = parameters()
        optimizer = build_optimizer(config, values)
        allocate_state(optimizer)
        before = [value.detach().clone() for value in values.values()]
        optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
        for value in values.values():
            value.grad = torch.full_like(value, torch.nan)
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(values.values(), before, strict=True))
        assert all(tensor.isfinite().all() for state in optimizer.state.values() for tensor in state.values())
