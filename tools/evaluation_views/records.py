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
        of: list[tuple[str | None, int, dict[str, Metric]]] = [(None, each.result.examples, each.result.metrics)]
        of += [(name, part.examples, part.metrics) for name, part in sorted(each.result.parts.items())]
        for part, examples, known in of:
            records += [_record(each, part, examples, name, known[name]) for name in sorted(wanted) if name in known]
    records += [
        _unfinished(each.run, each.state.step, each.state.label, each.state.state) for each in gathered.unfinished
    ]
    order = {run: number for number, run in enumerate(gathered.runs)}
    return sorted(
        records,
        key=lambda record: (order[record.run], record.step, record.label, record.part or "", record.metric or ""),
    )


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
    return Record(run=run, step=step, label=label, state=state, **unknown)


def as_rows(records: Sequence[Record]) -> list[dict[str, object]]:
    """An object for each."""
    return [asdict(record) for record in records]


def file_bytes(records: Sequence[Record], ending: str) -> bytes:
    """The content of a file: .csv, .json or .parquet; floats as they are, to the last digit."""
    if ending == ".parquet":
        return _parquet(records)
    if ending == ".json":
        return (json.dumps(as_rows(records), indent=1) + "\n").encode()
    return _csv(records)


def _csv(records: Sequence[Record]) -> bytes:
    """A row for each, an empty field for what is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows([getattr(record, name) for name in NAMES] for record in records)
    return text.getvalue().encode()


def _parquet(records: Sequence[Record]) -> bytes:
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
