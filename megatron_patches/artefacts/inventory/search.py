"""Finding artefacts: words anywhere, and conditions on what their manifests say."""

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.evaluated import WITHOUT_CHECKPOINT, in_json, measured
from megatron_patches.artefacts.inventory.lineage import FAULTY
from megatron_patches.artefacts.inventory.renewal import GOLD_VALUE, TAGGED
from megatron_patches.errors import TrainyardError

_METRIC = re.compile(r"([^<>\"]*?[^<>\"=!\s])\s*(<=|>=|<|>|=)\s*([-+]?\.?\d[\d.eE+-]*)")
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq
}  # fmt: skip
_ORDER = "ORDER BY run, step, manifest"
_RANGE = re.compile(r"(\d*)(:?)(\d*)")
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Wanted:
    """What to look for; everything that is given must hold."""

    terms: list[str] = field(default_factory=list)
    runs: list[str] | None = None
    """only of these; None means any"""
    kinds: list[str] = field(default_factory=list)
    steps: str = ""
    """1000, 1000:5000, 1000: or :5000; both ends belong to it"""
    tokens: str = ""
    """the same with K, M, B or T behind a number: 1B:2B"""
    metrics: list[str] = field(default_factory=list)
    """validation_loss<3.2, of one validation group validation_loss.GROUP<3.2, of an evaluation hellaswag.acc_norm>0.3,
    which holds for its checkpoint; for the evaluation itself where its kind is asked for, or its checkpoint unknown"""
    layout: str = ""
    """part of it: tp2, or pp1 dp4"""
    location: str = ""
    """part of the name of a location that holds a copy; here means a local folder"""
    status: str = ""
    """valid, or invalid: itself, or one of its ancestors"""
    tag: str = ""
    """of its run"""
    since: str = ""
    """made on this day or later, 2026-11-01"""


def find(catalogue: Catalogue, wanted: Wanted, limit: int) -> tuple[list[Artefact], int]:
    """The artefacts that fit, by run and step, at most so many, and how many there are.

    Raises:
        TrainyardError: a condition is not formed as it must be.
    """
    asked = [_asked(text, catalogue) for text in wanted.metrics]
    conditions, values = _conditions(wanted, asked)
    where = " AND ".join(conditions) or "1"
    if wanted.status:
        catalogue_rows = catalogue.rows(FAULTY)
        faulty = {each for (each,) in catalogue_rows}
        found = catalogue.artefacts(where, values, _ORDER)
        found = [each for each in found if (each.id in faulty) == (wanted.status == "invalid")]
        return [_with_measured(each, asked) for each in found[:limit]], len(found)
    if asked:  # such a condition looks into all that there is, so that it is asked once
        numbers = [each for (each,) in catalogue.rows(f"SELECT number FROM artefacts WHERE {where}", values)]
        where, values = "number IN (SELECT value FROM json_each(?))", [json.dumps(numbers)]
    (count,) = catalogue.rows(f"SELECT count(*) FROM artefacts WHERE {where}", values)[0]
    found = catalogue.artefacts(where, [*values, limit], f"{_ORDER} LIMIT ?")
    return [_with_measured(each, asked) for each in found], count


def metric_names(wanted: Wanted) -> list[str]:
    """The metrics that are asked for.

    Raises:
        TrainyardError: a condition is not formed as it must be.
    """
    return [_metric(text)[0] for text in wanted.metrics]


@dataclass(frozen=True)
class _Metric:
    """A condition on a metric."""

    name: str
    sign: str
    number: float
    measured: dict[str, float]
    """by a checkpoint's id, the values that its evaluation has"""

    @property
    def condition(self) -> str:
        """Of a checkpoint what was measured counts; else what a manifest states, and least what people typed."""
        # text that lacks the name is not parsed, which takes most of the time
        found = "coalesce(CASE WHEN instr(metrics, ?) THEN json_extract(metrics, ?) END, json_extract(parts, ?)"
        told = f"{found}, ({GOLD_VALUE})) {self.sign} ?"
        among = "id IN (SELECT value FROM json_each(?))"
        return f"CASE WHEN kind = 'checkpoint' AND {among} THEN {among} ELSE {told} END" if self.measured else told

    @property
    def values(self) -> list[Any]:
        """Of the marks in `condition`."""
        told = [json.dumps(self.name), in_json(self.name), in_json(self.name), self.name, self.number]
        if not self.measured:
            return told
        fitting = [each for each, value in self.measured.items() if _SIGNS[self.sign](value, self.number)]
        return [json.dumps(list(self.measured)), json.dumps(fitting), *told]


def _asked(text: str, catalogue: Catalogue) -> _Metric:
    name, sign, number = _metric(text)
    return _Metric(name, sign, number, measured(catalogue, name))


def _with_measured(artefact: Artefact, asked: list[_Metric]) -> Artefact:
    """The artefact as it was found: by metrics of its parts, or of its evaluation, too."""
    found = {each.name: each.measured[artefact.id] for each in asked if artefact.id in each.measured}
    found |= {each.name: artefact.parts[each.name] for each in asked if each.name in artefact.parts}
    return replace(artefact, metrics={**found, **artefact.metrics, **found}) if found else artefact


def _conditions(wanted: Wanted, asked: list[_Metric]) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *more: Any) -> None:
        conditions.append(condition)
        values.extend(more)

    for term in wanted.terms:
        add("instr(lower(manifest || ' ' || id || ' ' || kind || ' ' || coalesce(format, '')), ?)", term.lower())
    if wanted.runs is not None:
        add(f"run IN ({','.join('?' * len(wanted.runs))})", *wanted.runs)
    if wanted.kinds:
        add(f"kind IN ({','.join('?' * len(wanted.kinds))})", *wanted.kinds)
    for column, text in (("step", wanted.steps), ("tokens", wanted.tokens)):
        if text:
            add(f"{column} BETWEEN ? AND ?", *number_range(text, f"--{column if column == 'tokens' else 'steps'}"))
    for metric in asked:
        add(metric.condition, *metric.values)
    if asked and not wanted.kinds:  # people look for the checkpoint, which is found by the same numbers
        add(f"(kind != 'evaluation' OR ({WITHOUT_CHECKPOINT}))")
    for part in wanted.layout.split():
        add("instr(' ' || layout || ' ', ?)", f" {part} ")
    if wanted.location == "here":
        add("whereabouts = 'here'")
    elif wanted.location:
        add("id IN (SELECT of FROM copies WHERE instr(location, ?))", wanted.location)
    if wanted.tag:
        add(f"run IN ({TAGGED})", wanted.tag)
    if wanted.since:
        add("created >= ?", wanted.since)
    return conditions, values


def number_range(text: str, option: str) -> tuple[int, int]:
    """The two ends of a range such as 1000:5000, 1B: or 400.

    Raises:
        TrainyardError: it is not formed so.
    """
    first, colon, last = text.partition(":")
    try:
        lower = _number(first) if first else 0
        upper = (_number(last) if last else 2**62) if colon else lower
    except (KeyError, ValueError, OverflowError):
        raise TrainyardError(f"{option} {text}: give a number, or a range: 1000:5000, 1000: or :5000") from None
    return lower, upper


def _number(text: str) -> int:
    unit = text[-1].upper() if text[-1].isalpha() else ""
    return round(float(text.removesuffix(text[-1]) if unit else text) * _SIZES[unit])


def _metric(text: str) -> tuple[str, str, float]:
    found = _METRIC.fullmatch(text.strip())
    try:
        if found is None or '"' in text:
            raise ValueError
        return found[1], found[2], float(found[3])
    except ValueError:
        raise TrainyardError(f"--metric {text}: give a name, a sign and a number: 'validation_loss<3.2'") from None
