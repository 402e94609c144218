"""What there is to say of each run: from train/, from its directory, from what people said, from what was published."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import Standing, scan_annotations, standing_of
from megatron_patches.artefacts.chosen import BEST_BY, VALIDATION_LOSS, group_of
from megatron_patches.artefacts.inventory.artefact import group_metric
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.inventory.renewal import GOLD_METRICS_OF_RUN
from megatron_patches.artefacts.run_folder import TENSORBOARD, RunFolder, rehearsal_of
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.events.group_losses import read_group_losses
from megatron_patches.foreign.names import is_name
from tools.run_files.name import order
from tools.run_views.best_metric import BestMetric, best_metric
from tools.run_views.published import PublishedGroup, PublishedRun, scan_published
from tools.run_views.state import RunState, derive_state, read_queue


@dataclass(frozen=True)
class RunRecord:
    """One run in the inventory; what is not known is None or empty."""

    name: str
    family: str | None
    baseline: str | None
    why: str
    state: RunState
    declared: bool
    """the state is its owners' word, not derived"""
    best: BestMetric | None
    gold: list[str]
    trackers: list[str]
    locations: list[str]
    tags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """what of it cannot be read, and why; the rest is told all the same"""
    rehearsal_of: str | None = None
    """the run whose rehearsal it is"""

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        best = {self.best.name: self.best.value} if self.best else {}
        return asdict(self) | {
            "best": best,
            "best_step": self.best.step if self.best else None,
            "best_group": self.best.group if self.best else None,
        }


class Inventory:
    """All runs that this checkout and its root of runs know of."""

    def __init__(self, checkout: Path, runs: Path, catalogue: Catalogue) -> None:
        self.checkout = checkout
        self.runs = runs
        self.catalogue = catalogue

    @cached_property
    def files(self) -> dict[str, Path]:
        """YAML files of the runs under train/, by name."""
        return {path.stem: path for path in (self.checkout / "train").glob("*/*.yaml") if is_name(path.stem)}

    @cached_property
    def published(self) -> list[PublishedGroup]:
        """What others published, as far as it can be read."""
        return self._read_published[0]

    @cached_property
    def _read_published(self) -> tuple[list[PublishedGroup], list[str]]:
        return scan_published(self.checkout)

    def problems(self) -> list[str]:
        """What could not be read of the folders, and of what others published; runs have their own."""
        return self.catalogue.problems() + self._read_published[1]

    @cached_property
    def _published_runs(self) -> dict[str, PublishedRun]:
        return {run.name: run for group in self.published for run in group.runs}

    @cached_property
    def _queue(self) -> dict[str, str]:
        return read_queue()

    def names(self) -> list[str]:
        """Every run, by number and name."""
        names = {*self.files, *self._with_directory, *self._published_runs}
        return sorted(names, key=lambda name: order(Path(name)))

    def texts(self, name: str) -> str:
        """What free words are looked for in."""
        parts = [name, *(str(part) for part in self._yaml(name).values() if isinstance(part, str))]
        if name in self.files:
            parts.append(self.files[name].parent.name)
        standing = self.standing(name)
        parts += [note.text for note in standing.notes] + standing.tags
        if published := self._published_runs.get(name):
            parts += [published.notes, published.group, published.run or "", *published.details.values()]
        return " ".join(parts).lower()

    def standing(self, name: str, problems: list[str] | None = None) -> Standing:
        """What people said about a run; an annotation that cannot be read is added to the problems."""
        annotations, unread = scan_annotations(self.runs / name)
        if problems is not None:
            problems += unread
        return standing_of(annotations)

    def baseline(self, name: str, problems: list[str] | None = None) -> str | None:
        """The run that one differs from, as train/ or its publishers say."""
        base = self._yaml(name, problems).get("base")
        if isinstance(base, str):
            return Path(base).stem
        return self._published_runs[name].baseline if name in self._published_runs else None

    def is_own(self, name: str) -> bool:
        """Whether a run was launched, pulled or adopted here, or stands under train/ and nobody else published it."""
        return name in self._with_directory or (name in self.files and name not in self._published_elsewhere)

    @cached_property
    def _with_directory(self) -> set[str]:
        return set(self.catalogue.run_names())

    @cached_property
    def _published_elsewhere(self) -> set[str]:
        return {*self._published_runs, *(run.run for run in self._published_runs.values() if run.run)}

    def record(self, name: str) -> RunRecord:
        """One run; what cannot be read of it is named in its problems and stops nothing."""
        if name in self._published_runs and not (self.runs / name).is_dir():
            return published_record(self._published_runs[name])
        problems = self.catalogue.problems(self.runs / name)
        folder, file = RunFolder(self.runs / name), self.files.get(name)
        standing = self.standing(name, problems)
        state = self._state(folder, standing, problems)
        if state.word == "stopped":
            state = replace(state, detail=f"{state.detail}; to continue it: {_start_of(file, self.checkout)}")
        return RunRecord(
            name=name,
            family=file.parent.name if file else None,
            baseline=self.baseline(name, problems),
            why=str(self._yaml(name).get("why", "")),
            state=state,
            declared=False,
            best=self.best(folder, problems),
            gold=self._gold(standing),
            trackers=_trackers(folder, problems),
            locations=self._locations(folder, problems),
            tags=standing.tags,
            notes=[f"{note.text} ({note.by}, {note.date[:10]})" for note in standing.notes],
            problems=list(dict.fromkeys(problems)),
            rehearsal_of=rehearsal_of(name),
        )

    def _yaml(self, name: str, problems: list[str] | None = None) -> dict[str, Any]:
        if name not in self.files:
            return {}
        try:
            return read_yaml(self.files[name])
        except TrainyardError as error:
            if problems is not None:
                problems.append(str(error))
            return {}

    def _state(self, folder: RunFolder, standing: Standing, problems: list[str]) -> RunState:
        """Steps and tokens as the events tell them; without events, as the newest checkpoint's manifest does."""
        state = derive_state(folder.path, standing, self._queue, problems=problems)
        if state.step is not None:
            return state
        query = "SELECT step, tokens FROM artefacts WHERE run = ? AND kind = 'checkpoint' AND step IS NOT NULL"
        newest = self.catalogue.rows(f"{query} ORDER BY step DESC, tokens IS NULL LIMIT 1", [folder.name])
        return replace(state, step=newest[0][0], tokens=newest[0][1]) if newest else state

    def best(self, folder: RunFolder, problems: list[str]) -> BestMetric | None:
        """The best of a run wherever it is said: from its validations, what its manifests say, and what its gold was
        chosen by."""
        validated = read_group_losses(folder.events, problems)
        group = validated.group or self._newest_group(folder.name)
        found: list[tuple[str, float, int | None]] = [(VALIDATION_LOSS, loss, step) for step, loss in validated.losses]
        query = "SELECT metrics, best_by, step FROM artefacts WHERE run = ? AND state = 'valid' AND metrics != '{}'"
        for metrics, best_by, step in self.catalogue.rows(query, [folder.name]):
            found += [(*each, step) for each in _metrics_of_run(json.loads(metrics), best_by, group)]
        found += [(name, value, None) for name, value in self.catalogue.rows(GOLD_METRICS_OF_RUN, [folder.name])]
        return best_metric(found, group)

    def _newest_group(self, run: str) -> str:
        """As the newest checkpoint says where no events do, such as of a run that was pulled without them."""
        query = "SELECT best_by FROM artefacts WHERE run = ? AND kind = 'checkpoint' AND best_by IS NOT NULL"
        newest = self.catalogue.rows(f"{query} ORDER BY step DESC LIMIT 1", [run])
        return group_of({BEST_BY: newest[0][0] if newest else None})

    def _gold(self, standing: Standing) -> list[str]:
        found = []
        for artefact, promotion in standing.gold.items():
            known = self.catalogue.artefacts("id = ?", [artefact], "LIMIT 1")
            found.append(_gold_line(known[0].name if known else artefact[:12], promotion.metric, promotion.value))
        return found

    def _locations(self, folder: RunFolder, problems: list[str]) -> list[str]:
        here = [f"$TRAINYARD_RUNS/{folder.name}"] if folder.checkpoints.is_dir() else []
        try:
            copies = [copy.location for copy in read_copies(folder.path) if not copy.problem]
        except TrainyardError as error:
            problems.append(str(error))
            return here
        return here + sorted(set(copies))


def published_record(run: PublishedRun) -> RunRecord:
    """A published run as its owners declared it."""
    detail = run.reason or run.declared
    return RunRecord(
        name=run.name,
        family=None,
        baseline=run.baseline,
        why="",
        state=RunState(run.state, detail, run.steps, run.tokens),
        declared=True,
        best=best_metric((name, value, None) for name, value in run.metrics.items()),
        gold=[_gold_line(gold.name, gold.metric, gold.value) for gold in run.gold],
        trackers=run.trackers,
        locations=[
            f"{location.at}{' [truncated]' if location.truncated else ''} [unverified]" for location in run.locations
        ],
        notes=[run.notes] if run.notes else [],
    )


def _gold_line(name: str, metric: str | None, value: float | None) -> str:
    return f"{name} {metric} {value:g}" if metric and value is not None else name


def _start_of(file: Path | None, checkout: Path) -> str:
    script = file.with_suffix(".slurm") if file else None
    if script is None or not script.is_file():
        return "start it again as it was started"
    return f"{'sbatch' if shutil.which('sbatch') else 'bash'} {script.relative_to(checkout)}"


def _metrics_of_run(metrics: dict[str, float], best_by: str | None, group: str) -> Iterator[tuple[str, float]]:
    """An artefact's metrics as those of its run, whose validation loss is that of one group."""
    own = {name: value for name, value in metrics.items() if not name.startswith(group_metric(""))}
    if group_of({BEST_BY: best_by}) != group:
        own.pop(VALIDATION_LOSS, None)
    if group_metric(group) in metrics:
        own[VALIDATION_LOSS] = metrics[group_metric(group)]
    yield from own.items()


def _trackers(folder: RunFolder, problems: list[str]) -> list[str]:
    found = [TENSORBOARD] if folder.tensorboard.is_dir() else []
    if not folder.config.exists():
        return found
    try:
        logging = read_yaml(folder.config).get("logging")
    except TrainyardError as error:
        problems.append(str(error))
        return found
    wandb = logging.get("wandb") if isinstance(logging, dict) else None
    if isinstance(wandb, dict):
        group = f"/{wandb['group']}" if wandb.get("group") else ""
        found.append(f"wandb {wandb.get('project')}{group} ({wandb.get('mode')})")
    return found
