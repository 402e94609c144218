"""Results in long form, a record for each number, and the files that hold them: CSV, JSON, parquet."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from megatron_patches.artefacts.evaluations.result import Metric
from tools.evaluation_views.gathered import Found, Gathered


@dataclass(frozen=True)
class Record:
    """One number of a result, or an evaluation that has none yet."""

    run: str
    step: int
    tokens: int | None
    label: str
    part: str | None
    """None of the whole task"""
    metric: str | None
    """None where there is no result yet"""
    value: float | None
    standard_error: float | None
    chance: float | None
    higher_is_better: bool | None
    examples: int | None
    shots: int | None
    limit: int | None
    length: int | None
    version: str | None
    definition: str | None
    through: str | None
    checkpoint: str | None
    state: str
    """valid or invalid; pending, running or failed where there is no result"""


NAMES = [field.name for field in fields(Record)]


def records_of(gathered: Gathered, metrics: Mapping[str, Sequence[str]]) -> list[Record]:
    """The numbers of these metrics by label, of tasks and of their parts: by run, step, label, part and metric."""
    records = []
    for each in gathered.found:
        wanted = metrics.get(each.result.label, ())
        parts = [(None, each.result.examples, each.result.metrics)]
        parts += [(name, part.examples, part.metrics) for name, part in sorted(each.result.parts.items())]
        for part, examples, known in parts:
            records += [
                _record(each, part, examples, name, known[name]) for name in sorted(wanted) if name in known
            ]
    records += [
        _unfinished(each.run, each.state.step, each.state.label, each.state.state) for each in gathered.unfinished
    ]
    order = {run: number for number, run in enumerate(gathered.runs)}
    key = lambda record: (order[record.run], record.step, record.label, record.part or "", record.metric or "")  # noqa: E731
    return sorted(records, key=key)


def _record(found: Found, part: str | None, examples: int, name: str, metric: Metric) -> Record:
    result = found.result
    return Record(
        run=found.run, step=result.step, tokens=result.tokens, label=result.label, part=part, metric=name,
        value=metric.value, standard_error=metric.standard_error, chance=metric.chance,
        higher_is_better=metric.higher_is_better, examples=examples, shots=result.shots, limit=result.limit,
        length=result.length, version=result.version, definition=result.definition, through=result.through,
        checkpoint=result.checkpoint, state="invalid" if found.invalid else "valid",
    )  # fmt: skip


def _unfinished(run: str, step: int, label: str, state: str) -> Record:
    unknown = dict.fromkeys(set(NAMES) - {"run", "step", "label", "state"})
    return Record(run=run, step=step, label=label, state=state, **unknown)  # type: ignore[arg-type]


def as_csv(records: Sequence[Record]) -> bytes:
    """A row for each, an empty field for what is not known; floats as they are, to the last digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows([getattr(record, name) for name in NAMES] for record in records)
    return text.getvalue().encode()


def as_json(records: Sequence[Record]) -> bytes:
    """A list with an object for each."""
    return (json.dumps([asdict(record) for record in records], indent=1) + "\n").encode()


def as_parquet(records: Sequence[Record]) -> bytes:
    """A file of parquet, with a column for each field."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats, whole, truth = ("value", "standard_error", "chance"), ("step", "tokens", "examples", "shots"), pa.bool_()
    types = {name: pa.string() for name in NAMES}
    types |= {name: pa.float64() for name in floats} | {name: pa.int64() for name in (*whole, "limit", "length")}
    types["higher_is_better"] = truth
    columns = {name: pa.array([getattr(record, name) for record in records], types[name]) for name in NAMES}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue().to_pybytes()
