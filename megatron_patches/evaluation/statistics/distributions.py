"""Tails and quantiles. scipy is imported where one is asked for: a command line that asks for none starts without it,
and `scipy.special` alone costs a third of `scipy.stats`, whose numbers it gives."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def normal_quantile(share: float) -> float:
    """Below it lies this share of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(share))


def normal_tails(statistic: ArrayLike) -> Floats:
    """Two-sided p values of a standard normal statistic, of any shape."""
    from scipy.special import ndtr

    return np.asarray(2 * ndtr(-np.abs(statistic)), dtype=np.float64)


def t_quantile(share: float, degrees: float) -> float:
    """Below it lies this share of Student's t distribution of so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def t_tails(statistic: ArrayLike, degrees: float) -> Floats:
    """Two-sided p values of Student's t, of any shape."""
    from scipy.special import stdtr

    return np.asarray(2 * stdtr(degrees, -np.abs(statistic)), dtype=np.float64)


def binomial_below(successes: ArrayLike, trials: ArrayLike, probability: ArrayLike) -> Floats:
    """Probability of so many successes or fewer, -1 at least. The shapes are broadcast.

    By the incomplete beta function: `scipy.special.bdtr` is wrong in the third place for ten million trials.
    """
    from scipy.special import betainc

    count, of = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    found = betainc(np.maximum(of - count, 0.5), np.maximum(count + 1, 0.5), 1 - np.asarray(probability))
    return np.where(count < 0, 0.0, np.where(count >= of, 1.0, found))
