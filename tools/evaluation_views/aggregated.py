"""The file that BigScience published of a run's evaluations: `{"tokens", "checkpoints", "results"}`, lists by step."""

import json
from collections.abc import Callable, Iterator, Sequence

from tools.evaluation_views.columns import Column, Place, Value


def aggregated(columns: Sequence[Column], places: Sequence[Place], tokens: dict[Place, int]) -> bytes:
    """The file of one run: of each label every metric and its standard error, a value for each step; None is null.

    A part is a task of its own, LABEL.PART; results of another definition are too, with a letter.
    """
    evaluated = [place for place in places if any(place in column.values for column in columns)]
    results: dict[str, dict[str, list[float | None]]] = {}
    for column in columns:
        if column.metric:
            results.setdefault(_task(column), {}).update(_lists(column, evaluated))
    content = {
        "tokens": [tokens.get(place) for place in evaluated],
        "checkpoints": [place.step for place in evaluated],
        "results": results,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _task(column: Column) -> str:
    name = f"{column.label}.{column.part}" if column.part else column.label
    return f"{name} ({column.letter})" if column.letter else name


def _lists(column: Column, places: Sequence[Place]) -> Iterator[tuple[str, list[float | None]]]:
    def values(read: Callable[[Value], float | None]) -> list[float | None]:
        return [read(column.values[place]) if place in column.values else None for place in places]

    yield column.metric, values(lambda value: value.metric.value)
    errors = values(lambda value: value.metric.standard_error)
    if any(error is not None for error in errors):
        yield f"{column.metric}_stderr", errors
