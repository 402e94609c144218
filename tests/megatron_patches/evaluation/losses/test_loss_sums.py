"""Sums over samples, and what they say of a loss."""

import math

import numpy as np
import pytest

from megatron_patches.errors import Damaged, Refused
from megatron_patches.evaluation.losses.loss_sums import LossSums, metrics_of, part_of, pooled


def sums_of(losses: np.ndarray, targets: np.ndarray) -> LossSums:
    sums = [losses.sum(), targets.sum(), (losses**2).sum(), (losses * targets).sum(), (targets**2).sum()]
    return LossSums.of(len(losses), [float(each) for each in sums])


def test_of_equal_samples_the_error_is_that_of_a_mean() -> None:
    losses = np.random.default_rng(0).normal(48.0, 5.0, 60)
    metric = part_of(sums_of(losses, np.full(60, 16.0))).metrics["loss"]
    assert metric.value == pytest.approx(losses.mean() / 16)
    assert metric.standard_error == pytest.approx(losses.std(ddof=1) / math.sqrt(60) / 16)


def test_of_unequal_samples_the_error_is_what_draws_show() -> None:
    """Loss and targets go together: the naive error, of the losses alone, would be several times as large."""
    draw = np.random.default_rng(1)
    errors, means = [], []
    for _ in range(400):
        targets = draw.integers(1, 60, 80).astype(float)
        losses = targets * draw.normal(3.0, 0.2, 80)
        metric = part_of(sums_of(losses, targets)).metrics["loss"]
        assert metric.standard_error is not None
        errors.append(metric.standard_error)
        means.append(metric.value)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_perplexity_has_the_error_of_its_logarithm_and_is_left_out_where_no_number_holds_it() -> None:
    found = metrics_of(3.0, 0.01)
    assert found["perplexity"].value == pytest.approx(math.exp(3))
    assert found["perplexity"].standard_error == pytest.approx(math.exp(3) * 0.1)
    assert not found["loss"].higher_is_better
    assert list(metrics_of(800.0, 0.01)) == ["loss"]
    assert metrics_of(709.0, 1e6)["perplexity"].standard_error is None


def test_several_groups_count_by_their_targets() -> None:
    first, second = sums_of(np.full(4, 20.0), np.full(4, 10.0)), sums_of(np.array([30.0, 42.0]), np.full(2, 30.0))
    found = pooled([first, second])["loss"]
    assert found.value == pytest.approx((80 + 72) / 100)
    of_second = part_of(second).metrics["loss"].standard_error
    assert of_second == pytest.approx(6 / 30)
    assert found.standard_error == pytest.approx(0.6 * 6 / 30)
    alone = sums_of(np.array([5.0]), np.array([2.0]))
    assert part_of(alone).metrics["loss"].standard_error is None
    assert pooled([first, alone])["loss"].standard_error is None


def test_what_is_no_loss() -> None:
    with pytest.raises(Refused, match="en: none of its 3 samples has a token to be predicted"):
        sums_of(np.zeros(3), np.zeros(3)).require_finite("en")
    with pytest.raises(Damaged, match="en: the model's loss is not finite"):
        sums_of(np.array([math.nan]), np.ones(1)).require_finite("en")
