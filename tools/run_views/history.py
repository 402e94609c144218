"""What a run's launches recorded of its course, as columns: every step, and every validation by its source."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron_patches.errors import TrainyardError
from megatron_patches.events.columns import StepColumns, empty_columns, measured, scan_steps
from megatron_patches.events.group_losses import group_of_validation, recorded_group
from megatron_patches.events.reading import Event, effective, event_files, scan_events
from megatron_patches.run.progress import StepRecord

COLUMNS = (
    "tokens",
    "loss",
    "learning_rate",
    "grad_norm",
    "seconds",
    "tokens_per_second",
    "tflops_per_process",
    "data_wait_seconds",
    "padding",
    "text_tokens_per_second",
)
"""what is read of each step"""
_WRITTEN = [field.name for field in fields(StepRecord) if field.name != "step"]
_WORTH_PROCESSES = 64 << 20
"""bytes of events in all from which several processes read faster than one"""


@dataclass(frozen=True)
class Validations:
    """Validations on one source, by step."""

    steps: NDArray[np.int64]
    tokens: NDArray[np.float64]
    """consumed until then; NaN where it was not recorded"""
    losses: NDArray[np.float64]
    """nats per target"""


@dataclass(frozen=True)
class History:
    """What is known of a run's course, less what was rolled back."""

    steps: StepColumns
    validations: dict[str, Validations]
    """by source, the run's first source first"""
    problems: list[str]
    """what could not be read, and why"""
    best_by: str | None = None
    """the source by which the newest launch tells the best checkpoint; None where that is not recorded"""

    @property
    def main_source(self) -> str | None:
        """Whose losses are the run's: that source, where it was validated on, else the first; None without any."""
        return self.best_by if self.best_by in self.validations else next(iter(self.validations), None)


def read_history(events: Path | None) -> History:
    """The history of one run from its folder of events; empty where there is none."""
    if events is None:
        return History(empty_columns(COLUMNS), {}, [])
    steps, problems = scan_steps(events, COLUMNS, _WRITTEN)
    found, unread = scan_events(events, ("start", "validation", "data"))
    by_source: dict[str, dict[int, Event]] = {}
    for event in effective(found, "validation"):
        by_source.setdefault(group_of_validation(event.facts), {})[event.facts["step"]] = event
    validations = {source: _validations(list(events.values())) for source, events in by_source.items()}
    return History(steps, validations, list(dict.fromkeys([*problems, *unread])), recorded_group(found))


def read_histories(folders: Sequence[Path | None]) -> list[History]:
    """The histories of several runs in their order; long ones are read by several processes."""
    sizes = sum(_size(folder) for folder in folders if folder is not None)
    workers = min(len(folders), len(os.sched_getaffinity(0)))
    if workers < 2 or sizes < _WORTH_PROCESSES:
        return [read_history(folder) for folder in folders]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(read_history, folders))


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in event_files(folder, []))
    except (OSError, TrainyardError):
        return 0  # read_history says what is wrong with it


def _validations(events: Sequence[Event]) -> Validations:
    ordered = sorted(events, key=lambda event: int(event.facts["step"]))
    return Validations(
        np.array([event.facts["step"] for event in ordered], dtype=np.int64),
        np.array([measured(event.facts.get("tokens")) for event in ordered], dtype=np.float64),
        np.array([measured(event.facts.get("loss")) for event in ordered], dtype=np.float64),
    )
