"""What there is to say of each run: from train/, from its directory, from what people said, from what was published."""

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import Standing, read_standing
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.inventory.renewal import GOLD_METRICS_OF_RUN
from megatron_patches.artefacts.run_folder import TENSORBOARD, RunFolder
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.run.events import effective, read_events
from tools.run_files.name import order
from tools.run_views.best_metric import BestMetric, best_metric
from tools.run_views.published import PublishedGroup, PublishedRun, read_published
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

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return asdict(self) | {"best": {self.best.name: self.best.value} if self.best else {}}


class Inventory:
    """All runs that this checkout and its root of runs know of."""

    def __init__(self, checkout: Path, runs: Path, catalogue: Catalogue) -> None:
        self.checkout = checkout
        self.runs = runs
        self.catalogue = catalogue

    @cached_property
    def files(self) -> dict[str, Path]:
        """YAML files of the runs under train/, by name."""
        return {path.stem: path for path in (self.checkout / "train").glob("*/*.yaml")}

    @cached_property
    def published(self) -> list[PublishedGroup]:
        """What others published."""
        return read_published(self.checkout)

    @cached_property
    def _published_runs(self) -> dict[str, PublishedRun]:
        return {run.name: run for group in self.published for run in group.runs}

    @cached_property
    def _queue(self) -> dict[str, str]:
        return read_queue()

    def names(self) -> list[str]:
        """Every run, by number and name."""
        names = {*self.files, *self.catalogue.run_names(), *self._published_runs}
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

    def standing(self, name: str) -> Standing:
        """What people said about a run."""
        return read_standing(self.runs / name)

    def baseline(self, name: str) -> str | None:
        """The run that one differs from, as train/ or its publishers say."""
        base = self._yaml(name).get("base")
        if isinstance(base, str):
            return Path(base).stem
        return self._published_runs[name].baseline if name in self._published_runs else None

    def record(self, name: str) -> RunRecord:
        """One run."""
        if name in self._published_runs and not (self.runs / name).is_dir():
            return published_record(self._published_runs[name])
        standing, folder = self.standing(name), RunFolder(self.runs / name)
        settings = self._yaml(name)
        file = self.files.get(name)
        return RunRecord(
            name=name,
            family=file.parent.name if file else None,
            baseline=self.baseline(name),
            why=str(settings.get("why", "")),
            state=self._state(folder, standing),
            declared=False,
            best=self._best(folder),
            gold=self._gold(standing),
            trackers=_trackers(folder),
            locations=self._locations(folder),
            tags=standing.tags,
            notes=[f"{note.text} ({note.by}, {note.date[:10]})" for note in standing.notes],
        )

    def _yaml(self, name: str) -> dict[str, Any]:
        if name not in self.files:
            return {}
        try:
            return read_yaml(self.files[name])
        except TrainyardError:
            return {}  # `tools/runs lint` says what is wrong with it; the inventory lists the run all the same

    def _state(self, folder: RunFolder, standing: Standing) -> RunState:
        """Steps and tokens as the events tell them; without events, as the newest checkpoint's manifest does."""
        state = derive_state(folder.path, standing, self._queue)
        if state.step is not None:
            return state
        query = "SELECT step, tokens FROM artefacts WHERE run = ? AND kind = 'checkpoint' AND step IS NOT NULL"
        newest = self.catalogue.rows(f"{query} ORDER BY step DESC, tokens IS NULL LIMIT 1", [folder.name])
        return replace(state, step=newest[0][0], tokens=newest[0][1]) if newest else state

    def _best(self, folder: RunFolder) -> BestMetric | None:
        """From its validations, what its manifests say, and what its gold was chosen by."""
        found = [("validation_loss", loss, step) for step, loss in _validations(folder.events)]
        query = "SELECT key, min(value), max(value) FROM artefacts, json_each(metrics) WHERE run = ? GROUP BY key"
        rows = self.catalogue.rows(query, [folder.name])
        rows += self.catalogue.rows(GOLD_METRICS_OF_RUN, [folder.name])
        return best_metric([*found, *((name, value, None) for name, *ends in rows for value in ends)])

    def _gold(self, standing: Standing) -> list[str]:
        found = []
        for artefact, promotion in standing.gold.items():
            known = self.catalogue.artefacts("id = ?", [artefact], "LIMIT 1")
            found.append(_gold_line(known[0].name if known else artefact[:12], promotion.metric, promotion.value))
        return found

    def _locations(self, folder: RunFolder) -> list[str]:
        copies = [copy.location for copy in read_copies(folder.path) if not copy.problem]
        here = [f"$TRAINYARD_RUNS/{folder.name}"] if folder.checkpoints.is_dir() else []
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


def _validations(events: Path) -> list[tuple[int, float]]:
    try:
        found = effective(read_events(events, ("start", "validation")), "validation")
    except Damaged:
        return []  # `tools/runs show` and reports say what is damaged; a list of runs does not stop at one of them
    first: dict[int, object] = {}  # a run's loss is that of its first source
    for event in found:
        first.setdefault(event.facts["step"], event.facts["loss"])
    return [(step, loss) for step, loss in first.items() if isinstance(loss, float)]


def _trackers(folder: RunFolder) -> list[str]:
    found = [TENSORBOARD] if folder.tensorboard.is_dir() else []
    if not folder.config.is_file():
        return found
    logging = read_yaml(folder.config).get("logging") or {}
    wandb = logging.get("wandb") or {}
    if wandb:
        found.append(f"wandb {wandb['project']}{'/' + wandb['group'] if wandb.get('group') else ''} ({wandb['mode']})")
    return found
