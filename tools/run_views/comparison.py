"""Runs beside each other: what each has reached, and their values where all have consumed the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable, shortened
from tools.run_views.history import History, Validations

Axis = Literal["steps", "tokens"]
Column = NDArray[np.float64]
FIRST_STEPS = 5
"""steps of a launch that say nothing of its speed: kernels are compiled and tuned, caches are cold"""


@dataclass(frozen=True)
class Metric:
    """A number that is recorded of a run over and over."""

    name: str
    column: str | None
    """of the steps; None for the loss of validations"""
    unit: str
    smooth: bool = True
    """it scatters from step to step, and is drawn as a mean over many"""
    from_zero: bool = False
    """drawn from 0 on: a difference of 1 % is to look like one"""


METRICS = (
    Metric("training_loss", "loss", "nats per target"),
    Metric("validation_loss", None, "nats per target", smooth=False),
    Metric("learning_rate", "learning_rate", "", smooth=False, from_zero=True),
    Metric("tokens_per_second", "tokens_per_second", "tokens/s", from_zero=True),
    Metric("text_tokens_per_second", "text_tokens_per_second", "tokens/s", from_zero=True),
    Metric("padding", "padding", "share of a batch", from_zero=True),
    Metric("seconds_per_step", "seconds", "s", from_zero=True),
    Metric("data_wait_seconds", "data_wait_seconds", "s", from_zero=True),
    Metric("grad_norm", "grad_norm", "before clipping"),
    Metric("tflops_per_process", "tflops_per_process", "TFLOP/s", from_zero=True),
)


@dataclass(frozen=True)
class Measurement:
    """A value, where it was found, and how it differs from the first run's; None where there is none."""

    value: float | None
    step: int | None = None
    difference: float | None = None


@dataclass(frozen=True)
class Reached:
    """What a run has reached by itself; None where nothing was recorded."""

    steps: int | None
    tokens: int | None
    training_loss: float | None
    """mean of the last steps, without those whose loss is not finite; NaN where none is"""
    averaged: int
    """how many of them have a finite loss"""
    not_finite: int
    """steps in all whose loss is not finite"""
    best_validation: Measurement
    last_validation: Measurement
    learning_rate: float | None
    """of the last step"""
    tokens_per_second: float | None
    """median, without the first steps of each launch"""
    seconds_per_step: float | None
    """median, without the first steps of each launch"""
    hours: float | None
    """of the steps that count, without validations and saves"""


@dataclass(frozen=True)
class Point:
    """Where runs are compared."""

    axis: Axis
    at: int
    """in steps or tokens"""
    limited_by: int | None
    """place of the run that has not come further; None where the point was asked for"""
    validation_at: int | None
    """in the axis's unit, the last validation that all runs which have any share; None where they share none"""


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other; every list is in the order in which they were named."""

    source: str | None
    """whose validation losses are compared"""
    other_sources: list[str]
    """on which any of the runs was validated too"""
    window: int
    """steps over which training losses are averaged"""
    reached: list[Reached]
    point: Point | None
    """None where no run has recorded a step"""
    values: dict[str, list[Measurement]]
    """by metric, at the point"""


def compare_histories(
    histories: Sequence[History],
    metrics: Sequence[Metric],
    *,
    axis: Axis | None = None,
    at: int | None = None,
    source: str | None = None,
    window: int = 100,
) -> Comparison:
    """Sums up each run, and compares them at one point.

    Args:
        axis: None is `natural_axis`.
        at: the point, in steps or tokens; None is the last that all runs with steps have reached.
        source: of the validations; None is the one by which the first run that was validated tells its best.

    Raises:
        TrainyardError: no run was validated on the group.
    """
    sources = list(dict.fromkeys(each for history in histories for each in history.validations))
    if source is not None and source not in sources:
        known = f"known here: {', '.join(map(printable, sources))}" if sources else "none of the runs was validated"
        raise TrainyardError(f"no run was validated on a group {shortened(source)}; {known}")
    source = source or next((each.main_source for each in histories if each.validations), None)
    point = common_point(histories, axis or natural_axis(histories), source, at)
    values = {} if point is None else {
        metric.name: values_at(histories, metric, point, source, window) for metric in metrics
    }  # fmt: skip
    others = [each for each in sources if each != source]
    return Comparison(source, others, window, [reached(each, source, window) for each in histories], point, values)


def reached(history: History, source: str | None, window: int) -> Reached:
    """Sums up one run.

    Args:
        source: of the validations that count.
        window: how many of the last steps the training loss is averaged over.
    """
    steps, numbers = history.steps, history.steps.numbers
    if not len(steps):
        validations = history.validations.get(source or "")
        best, last = _best(validations), _last(validations)
        return Reached(None, None, None, 0, 0, best, last, None, None, None, None)
    losses = numbers["loss"]
    validations = history.validations.get(source or "")
    seconds = numbers["seconds"][np.isfinite(numbers["seconds"])]
    return Reached(
        steps=int(steps.steps[-1]),
        tokens=_whole(numbers["tokens"][-1]),
        training_loss=_mean_loss(losses[-window:]),
        averaged=int(np.isfinite(losses[-window:]).sum()),
        not_finite=int((~np.isfinite(losses)).sum()),
        best_validation=_best(validations),
        last_validation=_last(validations),
        learning_rate=_finite(numbers["learning_rate"][-1]),
        tokens_per_second=_of_known(np.median, _settled(history, "tokens_per_second")),
        seconds_per_step=_of_known(np.median, _settled(history, "seconds")),
        hours=float(seconds.sum()) / 3600 if len(seconds) else None,
    )


def natural_axis(histories: Sequence[History]) -> Axis:
    """Tokens where runs consume different numbers of them in as many steps, and all have recorded them; else steps."""
    told = [history for history in histories if len(history.steps)]
    if any(np.isnan(history.steps.numbers["tokens"]).any() for history in told):
        return "steps"
    common = min((int(history.steps.steps[-1]) for history in told), default=0)
    consumed = set()
    for history in told:
        until = np.searchsorted(history.steps.steps, common, side="right")
        consumed.add(float(history.steps.numbers["tokens"][until - 1]) if until else 0.0)
    return "tokens" if len(consumed) > 1 else "steps"


def positions(history: History, axis: Axis) -> Column:
    """Where each step of a run lies on the axis; NaN where that was not recorded."""
    return history.steps.steps.astype(np.float64) if axis == "steps" else history.steps.numbers["tokens"]


def validation_positions(validations: Validations, axis: Axis) -> Column:
    """Where each validation lies on the axis."""
    return validations.steps.astype(np.float64) if axis == "steps" else validations.tokens


def common_point(histories: Sequence[History], axis: Axis, source: str | None, at: int | None) -> Point | None:
    """The point up to which all runs with steps have come, or the one asked for; None where no run has any."""
    ends = {
        place: float(np.nanmax(where))
        for place, history in enumerate(histories)
        if len(where := positions(history, axis)) and np.isfinite(where).any()
    }
    if not ends:
        return None
    shortest = min(ends, key=lambda place: ends[place])
    point = int(ends[shortest]) if at is None else at
    here = [
        {float(each) for each in validation_positions(found, axis) if each <= point}
        for place, history in enumerate(histories)
        if ends.get(place, -1) >= point and (found := history.validations.get(source or "")) is not None
    ]
    shared = set.intersection(*here) if here else set()
    limited = shortest if at is None and len(set(ends.values())) > 1 else None
    return Point(axis, point, limited, int(max(shared)) if shared else None)


def values_at(
    histories: Sequence[History], metric: Metric, point: Point, source: str | None, window: int
) -> list[Measurement]:
    """A metric of each run at a point, and its difference to the first run's.

    The training loss and the norm of gradients are means of the last steps until then, the speed is their median, the
    learning rate that of the last step. Of a run that has not come so far there is nothing. Validations are taken where
    all runs have one, and where there is no such point the last of each, without a difference.
    """
    found = [_value_at(history, metric, point, source, window) for history in histories]
    first = found[0].value
    if first is None or (metric.column is None and point.validation_at is None):
        return found
    return [
        found[0],
        *(each if each.value is None else replace(each, difference=each.value - first) for each in found[1:]),
    ]


def _value_at(history: History, metric: Metric, point: Point, source: str | None, window: int) -> Measurement:
    where = positions(history, point.axis)
    if not len(where) or not np.nanmax(where, initial=-1) >= point.at:
        return Measurement(None)
    if metric.column is None:
        validations = history.validations.get(source or "")
        if validations is None:
            return Measurement(None)
        limit = point.at if point.validation_at is None else point.validation_at
        places = np.flatnonzero(validation_positions(validations, point.axis) <= limit)
        if not len(places):
            return Measurement(None)
        return Measurement(float(validations.losses[places[-1]]), int(validations.steps[places[-1]]))
    places = np.flatnonzero(where <= point.at)[-window:]
    if not len(places):
        return Measurement(None)
    values, step = history.steps.numbers[metric.column][places], int(history.steps.steps[places[-1]])
    if metric.name == "learning_rate":
        return Measurement(_finite(values[-1]), step)
    if metric.name == "training_loss":
        return Measurement(_mean_loss(values), step)
    return Measurement(_of_known(np.mean, values) if metric.name == "grad_norm" else _of_known(np.median, values), step)


def _settled(history: History, column: str) -> Column:
    """Values of steps behind the first ones of each launch; all of them where there are no others."""
    behind = history.steps.steps - history.steps.began > FIRST_STEPS
    values = history.steps.numbers[column]
    return values[behind] if behind.any() else values


def _best(validations: Validations | None) -> Measurement:
    if validations is None or not np.isfinite(validations.losses).any():
        return Measurement(None)
    best = int(np.argmin(np.where(np.isfinite(validations.losses), validations.losses, np.inf)))
    return Measurement(float(validations.losses[best]), int(validations.steps[best]))


def _last(validations: Validations | None) -> Measurement:
    if validations is None or not len(validations.losses):
        return Measurement(None)
    return Measurement(float(validations.losses[-1]), int(validations.steps[-1]))


def _mean_loss(values: Column) -> float:
    """NaN where none is finite: a run that has diverged has a loss, and it is no number."""
    mean = _of_known(np.mean, values)
    return float("nan") if mean is None else mean


def _of_known(function: Callable[[Column], Any], values: Column) -> float | None:
    known = values[np.isfinite(values)]
    return float(function(known)) if len(known) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None
