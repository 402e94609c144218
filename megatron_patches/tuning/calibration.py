"""Speeds of a machine, from steps that were measured on it. Torch-free.

A step's seconds are a sum of amounts times seconds for each (`estimate/step_time.py`). The seconds are found by least
squares of relative errors, none below zero, drawn a little towards what is usual: a kind of work of which the measured
layouts have little keeps its usual speed instead of taking up noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megatron_patches.estimate.step_time import KINDS, Speeds, Work

TOWARDS_USUAL = 0.02
"""weight of a kind's relative distance from its usual speed, beside the mean of squared relative errors"""

# A thread of a server's CPU: 40 GFLOP/s of fp32, 5 GB/s, messages through shared memory at 1 GB/s and 200 microseconds.
USUAL_OF_A_CPU = Speeds(
    {
        "compute": 1 / 40e9,
        "activations": 1 / 5e9,
        "optimizer": 1 / 5e9,
        "messages inside": 1 / 1e9,
        "messages between": 1 / 1e9,
        "message count": 200e-6,
        "micro-batch": 500e-6,
    },
    "usual of a CPU's thread, not measured",
)


@dataclass(frozen=True)
class Measured:
    """A layout's work and what a step of it took."""

    work: Work
    seconds: float


def calibrate(measured: Sequence[Measured], usual: Speeds) -> Speeds:
    """Speeds that explain the measured steps; `usual` ones where there is nothing to learn from."""
    if not measured:
        return usual
    unit = np.array([usual.seconds_each[kind] for kind in KINDS])
    amounts = np.array([[each.work.amounts[kind] for kind in KINDS] for each in measured]) * unit
    seconds = np.array([each.seconds for each in measured])
    scale = float(np.median(seconds / amounts.sum(axis=1)))  # the machine as a whole, before its parts
    relative = amounts * scale / seconds[:, None]
    pull = np.sqrt(TOWARDS_USUAL) * np.eye(len(KINDS))
    matrix = np.vstack([relative / np.sqrt(len(measured)), pull])
    wanted = np.concatenate([np.ones(len(measured)) / np.sqrt(len(measured)), pull.sum(axis=1)])
    factors = non_negative_least_squares(matrix, wanted)
    found = {kind: float(value) for kind, value in zip(KINDS, factors * scale * unit, strict=True)}
    return Speeds(found, f"calibrated from {len(measured)} measured layouts")


def non_negative_least_squares(matrix: np.ndarray, wanted: np.ndarray, rounds: int = 2000) -> np.ndarray:
    """x >= 0 that minimises |matrix x - wanted|, by turns over the coordinates (Franc et al. 2005)."""
    products, right = matrix.T @ matrix, matrix.T @ wanted
    x = np.ones(matrix.shape[1])
    for _ in range(rounds):
        before = x.copy()
        for index in range(len(x)):
            x[index] = max(0.0, x[index] + (right[index] - products[index] @ x) / products[index, index])
        if np.abs(x - before).max() < 1e-10:
            break
    return x


@dataclass(frozen=True)
class Trust:
    """How well layouts are ranked, each predicted by speeds that were calibrated without it."""

    layouts: int
    kendall_tau: float
    """1 where every pair is in the measured order, 0 where that is chance"""
    regret: float
    """measured seconds of the layout predicted fastest, over the measured fastest, less 1"""
    median_error: float
    """of predicted seconds, relative"""


def trust(measured: Sequence[Measured], usual: Speeds) -> Trust:
    """Leave each measured layout out in turn."""
    predicted = [
        each.work.seconds(calibrate([other for other in measured if other is not each], usual)) for each in measured
    ]
    seconds = [each.seconds for each in measured]
    first = min(range(len(measured)), key=predicted.__getitem__)
    errors = [abs(found - true) / true for found, true in zip(predicted, seconds, strict=True)]
    return Trust(
        len(measured), kendall_tau(predicted, seconds), seconds[first] / min(seconds) - 1, float(np.median(errors))
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Pairs in the same order less pairs in the other, of all pairs (Kendall 1938); ties count for neither."""
    signs = [np.sign(first[a] - first[b]) * np.sign(second[a] - second[b]) for a in range(len(first)) for b in range(a)]
    return float(np.mean(signs)) if signs else 1.0
