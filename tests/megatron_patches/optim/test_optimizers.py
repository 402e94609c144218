"""Adafactor, Muon and Lion against what others wrote, in one process."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.optim._muon
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.optimization import Adafactor as TheirAdafactor

from megatron_patches.optim.build import allocate_state, build_optimizer
from megatron_patches.optim.master_weights import MasterWeights
from megatron_patches.optim.newton_schulz import orthogonalised
from megatron_patches.optim.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    MuonRestConfig,
    OptimizerConfig,
)
from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import InverseSquareRootScheduleConfig
from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer
from megatron_patches.parameters.info import describe, info_of
from tests.small_rows import whole_info

SHAPES = {
    "embedding.weight": (20, 8),
    "layers.0.wide.weight": (6, 8),
    "layers.0.tall.weight": (12, 8),
    "layers.0.tall.bias": (12,),
}


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    found = {name: nn.Parameter((torch.randn(s, generator=generator) * 0.1).to(dtype)) for name, s in SHAPES.items()}
    for name, parameter in found.items():
        describe(parameter, whole_info(name, SHAPES[name], matrix=name.endswith(".weight") and "norm" not in name))
    return found


def set_gradients(tensors: dict[str, nn.Parameter], step: int) -> None:
    for name, gradient in parameters(seed=step).items():
        tensors[name].grad = gradient.detach() * 20


def build(config: OptimizerConfig, tensors: dict[str, nn.Parameter], masters: bool = False) -> Optimizer:
    optimizer = build_optimizer(config, tensors)
    outer = MasterWeights(optimizer) if masters else optimizer
    if isinstance(optimizer, SlicedOptimizer):
        groups = SimpleNamespace(device=torch.device("cpu"), stage_group=dist.group.WORLD)
        held = outer.masters if isinstance(outer, MasterWeights) else {each: each for each in tensors.values()}
        fragments = [Fragment(n, info_of(p), held[p], 0, 0, p.numel(), True) for n, p in tensors.items()]
        optimizer.bind(fragments, groups)  # type: ignore[arg-type]
    allocate_state(optimizer)
    return outer


def assert_same(ours: dict[str, nn.Parameter], theirs: dict[str, nn.Parameter], tolerance: float = 1e-6) -> None:
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("scaled", [False, True])
def test_adafactor_at_a_fixed_rate(scaled: bool) -> None:
    ours, theirs = parameters(), parameters()
    config = AdafactorConfig(name="adafactor", learning_rate=1e-2, weight_decay=0.1, scale_by_parameter=scaled)
    config = config.model_copy(update={"weight_decay_by_name": {"*": 0.1}})
    optimizer = build(config, ours)
    reference = TheirAdafactor(
        theirs.values(), lr=1e-2, relative_step=False, scale_parameter=scaled, weight_decay=0.1, clip_threshold=1.0
    )
    for step in range(1, 6):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        reference.step()
        assert_same(ours, theirs)


def test_adafactor_by_relative_steps_is_a_schedule() -> None:
    """T5's relative step is min(0.01, 1 / sqrt(step)); step 10,000 is where the root takes over."""
    schedule = InverseSquareRootScheduleConfig(name="inverse_square_root", timescale=10_000)
    ours, theirs = parameters(), parameters()
    optimizer = build(AdafactorConfig(name="adafactor", learning_rate=1e-2), ours)
    reference = TheirAdafactor(theirs.values(), relative_step=True, scale_parameter=True, warmup_init=False)
    for step in (1, 2, 3, 40_000):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        if step == 40_000:  # as if all between had been taken
            for state in optimizer.state.values():
                state["step"].fill_(step - 1)
            for state in reference.state.values():
                state["step"] = step - 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, 1e-2, step, [100_000])
        before = {name: parameter.detach().clone() for name, parameter in ours.items()}
        optimizer.step()
        reference.step()
        assert_same(ours, theirs)
        assert not any(torch.equal(before[name], ours[name]) for name in ours)


def test_adafactor_keeps_a_row_and_a_column() -> None:
    tensors = parameters()
    optimizer = build(AdafactorConfig(name="adafactor", learning_rate=1e-2), tensors)
    assert isinstance(optimizer, SlicedOptimizer)
    kept = sum(state.numel() for each in optimizer.state.values() for kind, state in each.items() if kind != "step")
    kept += sum(piece.tensor.numel() for piece in optimizer.state_pieces())
    assert kept == (20 + 8) + (6 + 8) + (12 + 8) + 12
    assert all(piece.written_here for piece in optimizer.state_pieces())
    tensors["embedding.weight"].ds_pipe_replicated = True  # type: ignore[attr-defined]
    pieces = optimizer.state_pieces()
    assert {piece.name for piece in pieces if not piece.written_here} == {"embedding.weight"}, "another stage does"


def test_adafactor_steps_without_numbers_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of them to a GPU would make the host wait in every step."""
    tensors = parameters()
    optimizer = build(AdafactorConfig(name="adafactor", learning_rate=1e-2), tensors)
    set_gradients(tensors, 1)
    monkeypatch.setattr(torch, "tensor", None)
    optimizer.step()


@pytest.mark.parametrize("least", [None, 0.5])
def test_adafactor_moves_small_parameters_by_the_least_scale(least: float | None) -> None:
    """A first update has a root mean square of 1 (where every row and column is alike), times rate and scale."""
    tensors = {"layers.0.tall.bias": nn.Parameter(torch.zeros(12))}
    describe(tensors["layers.0.tall.bias"], whole_info("layers.0.tall.bias", (12,), matrix=False, initial="zeros"))
    optimizer = build(AdafactorConfig(name="adafactor", learning_rate=1e-2, least_scale=least), tensors)
    tensors["layers.0.tall.bias"].grad = torch.ones(12)
    optimizer.step()
    torch.testing.assert_close(tensors["layers.0.tall.bias"].data, torch.full((12,), -1e-2 * (least or 1e-3)))


@pytest.mark.parametrize("scale", ["shape", "rms"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon(scale: str, nesterov: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's, which orthogonalises in bf16 always, is given our iteration; the next test is about that."""
    monkeypatch.setattr(
        torch.optim._muon, "_zeropower_via_newtonschulz", lambda matrix, _, steps, __: orthogonalised(matrix, steps)
    )
    ours, theirs = parameters(), parameters()
    config = MuonConfig(
        name="muon", learning_rate=2e-2, weight_decay=0.1, momentum=0.9, nesterov=nesterov, update_scale=scale,
        rest=MuonRestConfig(learning_rate=1e-3, beta1=0.8),
    )  # fmt: skip
    optimizer = build(config, ours)
    inner = torch.optim.Muon(
        [theirs["layers.0.wide.weight"], theirs["layers.0.tall.weight"]],
        lr=2e-2, weight_decay=0.1, momentum=0.9, nesterov=nesterov,
        adjust_lr_fn="original" if scale == "shape" else "match_rms_adamw",
    )  # fmt: skip
    rest = torch.optim.AdamW(
        [
            {"params": [theirs["embedding.weight"]], "weight_decay": 0.1},
            {"params": [theirs["layers.0.tall.bias"]], "weight_decay": 0.0},
        ],
        lr=1e-3, betas=(0.8, 0.95),
    )  # fmt: skip
    for step in range(1, 5):
        for tensors in (ours, theirs):
            set_gradients(tensors, step)
        for group, peak in [
            *((g, 2e-2) for g in optimizer.param_groups + inner.param_groups),
            *((g, 1e-3) for g in rest.param_groups),
        ]:
            group["lr"] = peak / step  # one schedule for both rates
        for each in (optimizer, inner, rest):
            each.step()
        assert_same(ours, theirs)


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (64, 64), (3, 200)])
def test_newton_schulz_moves_singular_values_to_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalised(matrix, 5)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ found @ right.T
    assert found.shape == shape
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-4, "singular vectors stay"
    large = values > 0.02 * values.norm()  # smaller ones need more iterations
    assert large.sum() > 0.8 * len(values) and ((inner.diagonal()[large] - 1).abs() < 0.35).all()


def test_newton_schulz_as_torch_has_it() -> None:
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    theirs = torch.optim._muon._zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    torch.testing.assert_close(orthogonalised(matrix, 5), theirs.float(), atol=3e-2, rtol=0)


def test_newton_schulz_of_zeros() -> None:
    assert not orthogonalised(torch.zeros(3, 4), 5).any()


def test_lion() -> None:
    """Algorithm 2 of the paper, by hand."""
    tensors = parameters()
    expected: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    averages = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    optimizer = build(LionConfig(name="lion", learning_rate=1e-2, weight_decay=0.5), tensors)
    for step in range(1, 5):
        set_gradients(tensors, step)
        for name, tensor in tensors.items():
            gradient, decay = tensor.grad, 0.5 if tensor.ndim == 2 else 0.0
            assert gradient is not None
            direction = (0.9 * averages[name] + 0.1 * gradient).sign()
            expected[name] -= 1e-2 * (direction + decay * expected[name])
            averages[name] = 0.99 * averages[name] + 0.01 * gradient
        optimizer.step()
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor.detach(), expected[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        AdafactorConfig(name="adafactor", learning_rate=1e-3),
        LionConfig(name="lion", learning_rate=1e-3),
        MuonConfig(name="muon", learning_rate=1e-3, rest=MuonRestConfig(learning_rate=1e-3)),
    ],
    ids=lambda config: config.name,
)
def test_under_masters(config: OptimizerConfig) -> None:
    """bf16 weights end as the rounded weights of a run in fp32."""
    rounded = parameters(dtype=torch.bfloat16)
    exact = {name: nn.Parameter(tensor.detach().float()) for name, tensor in rounded.items()}
    for name, tensor in rounded.items():
        tensor.grad_dtype = torch.float32  # type: ignore[attr-defined]
        describe(exact[name], info_of(tensor))
    ours, theirs = build(config, rounded, masters=True), build(config, exact)
    assert isinstance(ours, MasterWeights)
    for step in range(1, 4):
        set_gradients(rounded, step)
        set_gradients(exact, step)
        ours.step()
        theirs.step()
    for name, tensor in rounded.items():
        assert torch.equal(ours.masters[tensor], exact[name]) and torch.equal(tensor, exact[name].bfloat16())


def test_muon_steps_nothing_else_by_its_rule() -> None:
    config = MuonConfig(name="muon", learning_rate=1e-2, rest=MuonRestConfig(learning_rate=1e-3))
    groups = build_optimizer(config, parameters()).param_groups
    assert {name: group["orthogonal"] for group in groups for name in group["names"]} == {
        "embedding.weight": False,
        "layers.0.wide.weight": True,
        "layers.0.tall.weight": True,
        "layers.0.tall.bias": False,
    }


def test_groups_by_decay() -> None:
    decays = {"*.weight": 0.2, "*.wide.*": 0.0, "*.bias": 0.4}
    config = AdamWConfig(name="adamw", learning_rate=1e-2, weight_decay=0.1, weight_decay_by_name=decays)
    tensors = parameters()
    tensors["layers.0.tall.weight"].requires_grad_(False)
    groups = build_optimizer(config, tensors).param_groups
    assert [(group["weight_decay"], group["names"]) for group in groups] == [
        (0.2, ["embedding.weight"]),
        (0.0, ["layers.0.wide.weight"]),
        (0.4, ["layers.0.tall.bias"]),
    ], "the last pattern that fits counts; frozen parameters are in no group"
