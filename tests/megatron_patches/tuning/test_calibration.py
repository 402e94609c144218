"""Speeds that measured steps teach, and how far their ranking is to be trusted."""

from dataclasses import replace

import numpy as np
import pytest

from megatron_patches.estimate.step_time import KINDS, Speeds, Work
from megatron_patches.tuning.calibration import (
    USUAL_OF_A_CPU,
    Measured,
    calibrate,
    kendall_tau,
    non_negative_least_squares,
    trust,
)


def machine(draw: np.random.Generator, count: int, noise: float = 0.0) -> list[Measured]:
    """Layouts of random amounts on a machine whose kinds of work are up to four times faster or slower than usual."""
    true = Speeds({kind: usual * draw.uniform(0.25, 4) for kind, usual in USUAL_OF_A_CPU.seconds_each.items()}, "true")
    found = []
    for _ in range(count):
        amounts = {kind: draw.uniform(0, 1) / USUAL_OF_A_CPU.seconds_each[kind] for kind in KINDS}
        work = Work(amounts)
        found.append(Measured(work, work.seconds(true) * draw.lognormal(0, noise)))
    return found


def test_speeds_are_found_from_enough_layouts() -> None:
    measured = machine(np.random.default_rng(1), 40)
    speeds = calibrate(measured, USUAL_OF_A_CPU)
    for each in measured:
        assert each.work.seconds(speeds) == pytest.approx(each.seconds, rel=0.25)
    assert trust(measured, USUAL_OF_A_CPU).kendall_tau > 0.8


def test_nothing_measured_leaves_the_usual_speeds() -> None:
    assert calibrate([], USUAL_OF_A_CPU) is USUAL_OF_A_CPU


def test_one_layout_scales_all_speeds_alike() -> None:
    """What a machine is slower by as a whole says nothing of its parts."""
    work = Work({kind: 1 / USUAL_OF_A_CPU.seconds_each[kind] for kind in KINDS})
    speeds = calibrate([Measured(work, 3 * len(KINDS))], USUAL_OF_A_CPU)
    ratios = [speeds.seconds_each[kind] / USUAL_OF_A_CPU.seconds_each[kind] for kind in KINDS]
    assert ratios == pytest.approx([3.0] * len(KINDS), rel=1e-3)


def test_no_kind_of_work_takes_less_than_no_time() -> None:
    assert non_negative_least_squares(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([1.0, 2.0]))[0] == 0.0


def test_noise_does_not_decide_the_ranking() -> None:
    found = trust(machine(np.random.default_rng(2), 16, noise=0.05), USUAL_OF_A_CPU)
    assert found.kendall_tau > 0.5
    assert found.layouts == 16


def test_kendalls_tau() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


def test_a_slow_first_choice_is_regretted() -> None:
    fast, slow = machine(np.random.default_rng(3), 2)
    measured = [replace(fast, seconds=1.0), replace(slow, seconds=2.0)]
    assert trust(measured, USUAL_OF_A_CPU).regret in (0.0, 1.0)
