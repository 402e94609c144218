"""GLUE's metrics against values by hand."""

import numpy as np
import pytest

from megatron_patches.evaluation.encoders.scores import (
    METRICS,
    accuracy,
    f1,
    matthews,
    pearson,
    spearman,
    squared_error,
)

PREDICTED = np.array([1, 1, 1, 0, 0, 0, 1, 0], dtype=np.float64)
LABELS = np.array([1, 1, 0, 0, 0, 1, 1, 0], dtype=np.float64)
"""3 true positives, 1 false one, 1 false negative, 3 true negatives"""


def test_labels() -> None:
    assert accuracy(PREDICTED, LABELS) == 6 / 8
    assert f1(PREDICTED, LABELS) == 2 * 3 / (2 * 3 + 1 + 1)
    # (3 x 3 - 1 x 1) / sqrt(4 x 4 x 4 x 4)
    assert matthews(PREDICTED, LABELS) == pytest.approx(8 / 16)
    assert matthews(1 - LABELS, LABELS) == pytest.approx(-1)
    assert f1(1 - LABELS, LABELS) == 0


def test_scores() -> None:
    first, second = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    # deviations (-4/3, -1/3, 5/3) and (-1, 1, 0)
    assert pearson(first, second) == pytest.approx(1 / np.sqrt(42 / 9 * 2))
    # ranks 1 2 3 and 1 3 2: 1 - 6 x 2 / (3 x 8)
    assert spearman(first, second) == pytest.approx(0.5)
    # equal numbers share their ranks: 1.5 1.5 3 and 1 2 3
    assert spearman(np.array([7.0, 7.0, 9.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(1.5 / np.sqrt(1.5 * 2))
    assert squared_error(first, second) == pytest.approx(5 / 3)


@pytest.mark.parametrize("name", ["mcc", "pearson", "spearman"])
def test_predictions_that_are_all_the_same_tell_nothing(name: str) -> None:
    same = np.full(8, 0.1)
    assert METRICS[name](same, LABELS) == 0
    assert METRICS[name](same + np.array([1e-17] * 8), LABELS) == 0
    assert METRICS[name](LABELS, same) == 0
