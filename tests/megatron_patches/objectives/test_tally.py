"""Means that are added up by what they are over."""

import pytest

from megatron_patches.objectives.tally import Tally


def test_the_mean_of_two_is_over_the_targets_of_both() -> None:
    both = Tally(2.0, 30.0) + Tally(6.0, 10.0)
    assert both == Tally(3.0, 40.0) and both.sum == 120.0


def test_what_has_no_targets_changes_nothing() -> None:
    assert Tally(2.5, 4.0) + Tally(9.0, 0.0) == Tally(2.5, 4.0)


def test_a_mean_over_nothing_is_none() -> None:
    with pytest.raises(ZeroDivisionError):
        Tally(0.0, 0.0) + Tally(0.0, 0.0)
