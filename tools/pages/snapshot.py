"""What the runs of this checkout had come to when the tables were last rendered: `published/own-runs.json`.

The tables are in the repository, the runs are not. So what is drawn from a run's directory is written down here, with
its date, and the tables are a pure function of the repository: a lint can tell a stale one anywhere.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable
from tools.run_views.published import FOLDER
from tools.run_views.views import Inventory, RunRecord

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
        Damaged: the file is.
    """
    path = checkout / FOLDER / FILE
    if not path.is_file():
        return {}
    try:
        entries = parse_object(read_bounded(path), printable(path))
        return {name: OwnRun(run=name, **facts) for name, facts in entries.items()}
    except (TrainyardError, TypeError) as error:
        raise Damaged(f"{path} is damaged ({error}); restore it, or `tools/inventory render` without it") from None


def renew_snapshot(inventory: Inventory) -> list[str]:
    """Writes down the launched runs under the root of runs; runs that are not there keep what was written before.

    Returns:
        A sentence for each thing of these runs that cannot be read.
    """
    problems = inventory.problems()
    before = read_snapshot(inventory.checkout)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    after = dict(before)
    for name in inventory.catalogue.run_names():
        if name in inventory.files and RunFolder(inventory.runs / name).launches.is_dir():
            record = inventory.record(name)
            problems += record.problems
            seen = _own_run(record, today)
            old = before.get(name)
            is_same = old is not None and asdict(old) | {"as_of": ""} == asdict(seen) | {"as_of": ""}
            after[name] = old if is_same and old is not None else seen
    if after != before:
        entries = {name: _entry(after[name]) for name in sorted(after)}
        text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
        (inventory.checkout / FOLDER).mkdir(exist_ok=True)
        write_atomically(inventory.checkout / FOLDER / FILE, text.encode())
    return problems


def _entry(run: OwnRun) -> dict[str, object]:
    return {key: value for key, value in asdict(run).items() if key != "run"}


def _own_run(record: RunRecord, today: str) -> OwnRun:
    return OwnRun(
        run=record.name,
        state=str(record.state),
        step=record.state.step,
        tokens=record.state.tokens,
        best=record.best.sentence if record.best else "",
        gold=record.gold,
        trackers=record.trackers,
        locations=record.locations,
        notes=record.notes,
        as_of=today,
    )
