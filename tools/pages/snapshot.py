"""What the runs of this checkout had come to when the tables were last rendered: `published/own-runs.json`.

The tables are in the repository, the runs are not. So what is drawn from a run's directory is written down here, with
its date, and the tables are a pure function of the repository: a lint can tell a stale one anywhere.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import TrainyardError
from megatron_patches.run.events import effective, read_events
from tools.run_views.published import FOLDER
from tools.run_views.views import LOWER_IS_BETTER, RunView, Yard

FILE = "own-runs.json"


@dataclass(frozen=True)
class OwnRun:
    """A run of this checkout that was launched."""

    run: str
    state: str
    step: int | None
    tokens: int | None
    best: str
    gold: list[str]
    trackers: list[str]
    locations: list[str]
    notes: list[str]
    as_of: str
    """day of the rendering that saw it change, UTC"""


def read_snapshot(checkout: Path) -> dict[str, OwnRun]:
    """The runs by name; empty where none was recorded.

    Raises:
        TrainyardError: the file is damaged.
    """
    path = checkout / FOLDER / FILE
    if not path.is_file():
        return {}
    try:
        return {name: OwnRun(run=name, **facts) for name, facts in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError) as error:
        raise TrainyardError(
            f"{path} is damaged ({error}); restore it, or `tools/inventory render` without it"
        ) from None


def renew_snapshot(yard: Yard) -> dict[str, OwnRun]:
    """Writes down the launched runs under the root of runs; runs that are not there keep what was written before."""
    before = read_snapshot(yard.checkout)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    after = dict(before)
    for name in yard.catalogue.run_names():
        if name in yard.files and (yard.runs / name / "launches").is_dir():
            seen = _own_run(yard, yard.view(name), today)
            old = before.get(name)
            is_same = old is not None and asdict(old) | {"as_of": ""} == asdict(seen) | {"as_of": ""}
            after[name] = old if is_same and old is not None else seen
    if after != before:
        entries = {name: _entry(after[name]) for name in sorted(after)}
        text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
        (yard.checkout / FOLDER).mkdir(exist_ok=True)
        write_atomically(yard.checkout / FOLDER / FILE, text.encode())
    return after


def _entry(run: OwnRun) -> dict[str, object]:
    return {key: value for key, value in asdict(run).items() if key != "run"}


def _own_run(yard: Yard, view: RunView, today: str) -> OwnRun:
    return OwnRun(
        run=view.name,
        state=str(view.state),
        step=view.state.step,
        tokens=view.state.tokens,
        best=_best(yard, view),
        gold=view.gold,
        trackers=view.trackers,
        locations=view.locations,
        notes=view.notes,
        as_of=today,
    )


def _best(yard: Yard, view: RunView) -> str:
    """The best validation of the events, else the best metric of a manifest."""
    events = effective(read_events(yard.runs / view.name / "events"), "validation")
    losses = [(event.facts["loss"], event.facts["step"]) for event in events if isinstance(event.facts["loss"], float)]
    if losses:
        loss, step = min(losses)
        return f"validation loss {loss:.4g} at step {step}"
    if view.best is None:
        return ""
    metric, value = view.best
    return f"{'lowest' if any(part in metric for part in LOWER_IS_BETTER) else 'highest'} {metric} {value:.4g}"
