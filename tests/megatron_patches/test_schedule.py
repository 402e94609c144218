"""Learning rates by hand."""

import math

import pytest

from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    LinearScheduleConfig,
)


def test_constant_is_constant() -> None:
    """A "constant" phase that decays cost a factor of nine at the resume of another system."""
    schedule = ConstantScheduleConfig(name="constant", warmup_steps=100)
    rates = [learning_rate(schedule, 1e-3, 1000, step) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(1e-5) and rates[49] == pytest.approx(5e-4)
    assert set(rates[99:]) == {1e-3}


def test_cosine() -> None:
    schedule = CosineScheduleConfig(name="cosine", warmup_steps=10, final_learning_rate=1e-4)
    at = {step: learning_rate(schedule, 1e-3, 110, step) for step in (10, 35, 60, 110)}
    assert at[10] == 1e-3 and at[60] == pytest.approx(5.5e-4) and at[110] == pytest.approx(1e-4)
    assert at[35] == pytest.approx(1e-4 + 9e-4 * (1 + math.cos(math.pi / 4)) / 2)


def test_linear_reaches_its_floor_at_decay_steps_and_stays() -> None:
    schedule = LinearScheduleConfig(name="linear", decay_steps=50)
    assert learning_rate(schedule, 1.0, 100, 25) == 0.5
    assert learning_rate(schedule, 1.0, 100, 50) == learning_rate(schedule, 1.0, 100, 100) == 0.0


def test_gpt2_124m_of_the_domain_token_experiment() -> None:
    schedule = CosineScheduleConfig(name="cosine", warmup_steps=715, final_learning_rate=6e-5)
    assert learning_rate(schedule, 6e-4, 19073, 715) == 6e-4
    assert learning_rate(schedule, 6e-4, 19073, 19073) == pytest.approx(6e-5)
