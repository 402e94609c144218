"""Every optimizer on cut parameters: the unsharded one's result, whatever is cut where."""

from collections.abc import Iterator
from math import prod
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.optimization import Adafactor

from megatron_patches.optim.build import build_optimizer
from megatron_patches.optim.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    MuonRestConfig,
    OptimizerConfig,
    SGDConfig,
)
from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.rectangles import rectangles
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer
from megatron_patches.parameters.info import ParameterInfo, describe, info_of
from megatron_patches.parameters.tensor_slice import TensorSlice
from tests.megatron_patches.optim.sliced_step import SHAPES, Cut, assemble, steps_of, steps_on_a_rank, whole
from tests.ranks import run_on_ranks
from tests.small_rows import row, whole_info

REST = MuonRestConfig(learning_rate=3e-3)
CONFIGS: dict[str, OptimizerConfig] = {
    "adamw": AdamWConfig(name="adamw", learning_rate=1e-2, weight_decay=0.1),
    "sgd": SGDConfig(name="sgd", learning_rate=1e-2, weight_decay=0.1, momentum=0.9),
    "lion": LionConfig(name="lion", learning_rate=1e-3, weight_decay=0.1),
    "adafactor": AdafactorConfig(name="adafactor", learning_rate=1e-2, weight_decay=0.1, scale_by_parameter=False),
    "adafactor scaled": AdafactorConfig(
        name="adafactor", learning_rate=1e-2, weight_decay=0.1, weight_decay_by_name={"*.down.*": 0.3}
    ),
    "muon": MuonConfig(name="muon", learning_rate=1e-2, weight_decay=0.1, rest=REST),
    "muon rms": MuonConfig(
        name="muon", learning_rate=1e-2, weight_decay=0.1, rest=REST, update_scale="rms", nesterov=False
    ),
}


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "cut",
    [Cut(data=2, zero=True), Cut(data=4, zero=True), Cut(tensor=2, data=2, zero=True), Cut(tensor=2, data=2)],
    ids=["zero, 2 ranks", "zero, 4 ranks", "tensor 2, zero", "tensor 2, data 2"],
)
def test_cut_parameters_are_stepped_as_whole_ones(cut: Cut) -> None:
    ranks = run_on_ranks(steps_on_a_rank, cut.tensor * cut.data, list(CONFIGS.values()), cut)
    for number, (name, config) in enumerate(CONFIGS.items()):
        expected = assemble([steps_of(config, Cut())])
        found = assemble([rank[number] for rank in ranks])
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, atol=1e-6, rtol=1e-6, msg=f"{name}: {key} is another one")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_that_is_left_out_changes_nothing(name: str) -> None:
    """At once, between others, and always."""
    config = CONFIGS[name]
    assert all(torch.equal(tensor, whole(key[0], 0)) for key, tensor in left_out(config, 1, 2, 3).items())
    for skipped in (1, 2, 3):
        found = left_out(config, skipped)
        assert all(tensor.isfinite().all() for tensor in found.values())
        assert not any(torch.equal(found[key], whole(key[0], 0)) for key in found)


def left_out(config: OptimizerConfig, *skipped: int) -> dict[tuple[str, str], torch.Tensor]:
    found = assemble([steps_of(config, Cut(), frozenset(skipped))])
    done = 3 - len(skipped)
    assert all(tensor.item() == done for (_, kind), tensor in found.items() if kind == "step")
    if done == 0:
        assert not any(tensor.any() for (_, kind), tensor in found.items() if kind != "value")
    return {(name, kind): tensor for (name, kind), tensor in found.items() if kind == "value"}


def test_an_element_that_nobody_counts_is_an_error() -> None:
    parameter = nn.Parameter(torch.zeros(4, 2))
    describe(parameter, whole_info("matrix", (4, 2)))
    optimizer = build_optimizer(CONFIGS["adafactor"], {"matrix": parameter})
    groups = SimpleNamespace(device=torch.device("cpu"), stage_group=dist.group.WORLD)
    assert isinstance(optimizer, SlicedOptimizer)
    for counted in (False, True):
        fragments = [Fragment("matrix", info_of(parameter), parameter, 0, 0, 8, counted)] * (2 if counted else 1)
        with pytest.raises(AssertionError, match=f"{16 * counted} of 8 elements of matrix are counted"):
            optimizer.bind(fragments, groups)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rectangles_are_the_stretch(data: st.DataObject) -> None:
    """Any stretch of any box: its rectangles hold its elements, each once, in positions of the whole parameter."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    edges = [sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))) for n in shape]
    box = TensorSlice(shape, tuple((low, high + 1) for low, high in edges))
    start = data.draw(st.integers(0, box.elements - 1))
    elements = data.draw(st.integers(1, box.elements - start))
    numbers = torch.arange(prod(shape), dtype=torch.float32).view(shape)
    stretch = numbers[tuple(slice(*each) for each in box.box)].flatten()[start : start + elements]
    held = torch.cat([torch.full((3,), -1.0), stretch, torch.full((2,), -1.0)])
    fragment = Fragment("matrix", ParameterInfo(row("matrix", shape), box), held, 3, start, elements, True)
    parts = rectangles(fragment)
    assert torch.equal(torch.cat([part.of(held).flatten() for part in parts]), stretch)
    whole = numbers.view(-1, shape[-1])
    assert all(torch.equal(part.within(whole), part.of(held)) for part in parts)


def test_fused_matrices_are_stepped_each_by_itself() -> None:
    """Query, key and value of 4 heads in one matrix, or in three: Muon's step is the same."""
    name = "layers.0.attention.query_key_value.linear.weight"
    config = CONFIGS["muon"]
    assert isinstance(config, MuonConfig)
    found = assemble([steps_of(config, Cut())])[name, "value"]
    apart = [nn.Parameter(whole(name, 0)[:, number].reshape(8, 8)) for number in range(3)]
    theirs = torch.optim.Muon(apart, lr=1e-2, weight_decay=0.1, momentum=config.momentum)
    for step in range(1, 4):
        for number, each in enumerate(apart):
            each.grad = whole(name, step)[:, number].reshape(8, 8)
        theirs.param_groups[0]["lr"] = 1e-2 * step
        theirs.step()
    for number, each in enumerate(apart):  # theirs in bf16
        torch.testing.assert_close(found[:, number].reshape(8, 8), each.detach(), atol=3e-3, rtol=0)


def test_factors_of_fused_matrices_are_apart() -> None:
    name = "layers.0.mlp.up.linear.weight"
    found = assemble([steps_of(CONFIGS["adafactor"], Cut())])
    rows, columns = found[name, "second_moment_rows"], found[name, "second_moment_columns"]
    apart = [nn.Parameter(whole(name, 0)[number].clone()) for number in range(2)]
    theirs = Adafactor(apart, lr=1e-2, scale_parameter=False, relative_step=False)
    for step in range(1, 4):
        for number, each in enumerate(apart):
            each.grad = whole(name, step)[number]
        theirs.step()
    for number, each in enumerate(apart):
        torch.testing.assert_close(rows.view(2, 10)[number], theirs.state[each]["exp_avg_sq_row"])
        torch.testing.assert_close(columns[number], theirs.state[each]["exp_avg_sq_col"])


def test_all_parameters_are_there() -> None:
    names = {name for name, _ in assemble([steps_of(CONFIGS["adamw"], Cut())])}
    assert names == set(SHAPES)
