"""The loss scale on the device against the same rule in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_patches.optim.loss_scale import LossScale
from megatron_patches.training.training_config import LossScaleConfig

CPU = torch.device("cpu")


class Simulation:
    """The rule, host-side."""

    def __init__(self, config: LossScaleConfig) -> None:
        self.config, self.scale = config, config.initial
        self.clean, self.left = 0, config.hysteresis

    def update(self, overflow: bool) -> None:
        if overflow:
            self.clean = 0
            self.left = max(0, self.left - 1)
            if self.left == 0:
                self.scale = max(self.config.minimum, self.scale / 2)
            return
        self.clean += 1
        if self.clean == self.config.window:
            self.clean, self.left = 0, self.config.hysteresis
            self.scale *= 2


def numbers(scale: LossScale) -> dict[str, float]:
    return {name: counter.item() for name, counter in scale.counters().items()}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1.0, 3.0, 64.0]))
def test_any_course(overflows: list[bool], window: int, hysteresis: int, minimum: float) -> None:
    config = LossScaleConfig(initial=64.0, window=window, hysteresis=hysteresis, minimum=minimum)
    ours, simulation = LossScale(config, CPU), Simulation(config)
    for overflow in overflows:
        ours.update(torch.tensor(float(overflow)))
        simulation.update(overflow)
        expected = {"scale": simulation.scale, "clean_steps": simulation.clean, "hysteresis_left": simulation.left}
        assert numbers(ours) == expected


def test_it_is_megatrons() -> None:
    """megatron-core's scaler wants CUDA tensors: they are given to it by hand."""
    from megatron.core.optimizer.grad_scaler import DynamicGradScaler

    theirs = DynamicGradScaler.__new__(DynamicGradScaler)
    theirs._scale, theirs.min_scale = torch.tensor([64.0]), torch.tensor([4.0])
    theirs.growth_factor, theirs.backoff_factor = torch.tensor([2.0]), torch.tensor([0.5])
    theirs.growth_interval, theirs.hysteresis = 3, 2
    theirs._growth_tracker, theirs._hysteresis_tracker = 0, 2
    ours = LossScale(LossScaleConfig(initial=64.0, window=3, hysteresis=2, minimum=4.0), CPU)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        overflow = bool(torch.rand((), generator=generator) < 0.4)
        ours.update(torch.tensor(float(overflow)))
        theirs.update(overflow)
        assert ours.scale.item() == theirs._scale.item()


def test_it_continues_from_a_checkpoint() -> None:
    config = LossScaleConfig(initial=8.0, window=2, hysteresis=2)
    first, second = LossScale(config, CPU), LossScale(config, CPU)
    for overflow in (1.0, 0.0):
        first.update(torch.tensor(overflow))
    held = second.scale
    second.load(numbers(first))
    for overflow in (1.0, 0.0, 0.0, 1.0):
        first.update(torch.tensor(overflow))
        second.update(torch.tensor(overflow))
        assert numbers(first) == numbers(second)
    assert held is second.scale, "who has taken the scale sees its updates"


def test_a_minimum_above_the_first_scale() -> None:
    with pytest.raises(ValueError, match="minimum 128 is above initial 64; use at most 64"):
        LossScaleConfig(initial=64.0, minimum=128.0)
