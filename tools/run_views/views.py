"""What there is to say of each run: from train/, from its directory, from what people said, from what was published."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.inventory.annotations import FOLDER as ANNOTATIONS
from megatron_patches.artefacts.inventory.annotations import Said, read_annotations, what_counts
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError
from tools.run_files.name import order
from tools.run_views.published import PublishedGroup, PublishedRun, read_published
from tools.run_views.state import RunState, derive_state, read_queue

LOWER_IS_BETTER = ("loss", "ppl", "perplexity", "bits")


@dataclass(frozen=True)
class RunView:
    """One run in the inventory; what is not known is None or empty."""

    name: str
    family: str | None
    baseline: str | None
    why: str
    state: RunState
    declared: bool
    """the state is its owners' word, not derived"""
    best: tuple[str, float] | None
    gold: list[str]
    trackers: list[str]
    locations: list[str]
    tags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return asdict(self) | {"best": dict([self.best]) if self.best else {}}


class Yard:
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
        said = self.said(name)
        parts += [note.text for note in said.notes] + said.tags
        if published := self._published_runs.get(name):
            parts += [published.notes, published.group, published.run or "", *published.details.values()]
        return " ".join(parts).lower()

    def said(self, name: str) -> Said:
        """What people said about a run."""
        return what_counts(read_annotations(self.runs / name / ANNOTATIONS))

    def baseline(self, name: str) -> str | None:
        """The run that one differs from, as train/ or its publishers say."""
        base = self._yaml(name).get("base")
        if isinstance(base, str):
            return Path(base).stem
        return self._published_runs[name].baseline if name in self._published_runs else None

    def view(self, name: str) -> RunView:
        """One run."""
        if name in self._published_runs and not (self.runs / name).is_dir():
            return view_published(self._published_runs[name])
        said, folder = self.said(name), self.runs / name
        settings = self._yaml(name)
        file = self.files.get(name)
        return RunView(
            name=name,
            family=file.parent.name if file else None,
            baseline=self.baseline(name),
            why=str(settings.get("why", "")),
            state=derive_state(folder, said, self._queue),
            declared=False,
            best=self._best(name),
            gold=self._gold(name, said),
            trackers=_trackers(folder),
            locations=self._locations(name),
            tags=said.tags,
            notes=[f"{note.text} ({note.by}, {note.date[:10]})" for note in said.notes],
        )

    def _yaml(self, name: str) -> dict[str, Any]:
        if name not in self.files:
            return {}
        try:
            return read_yaml(self.files[name])
        except TrainyardError:
            return {}  # `tools/runs lint` says what is wrong with it; the inventory lists the run all the same

    def _best(self, name: str) -> tuple[str, float] | None:
        query = "SELECT key, min(value), max(value) FROM artefacts, json_each(metrics) WHERE run = ? GROUP BY key"
        return best_metric((key, value) for key, *ends in self.catalogue.rows(query, [name]) for value in ends)

    def _gold(self, name: str, said: Said) -> list[str]:
        found = []
        for artefact, word in said.gold.items():
            known = self.catalogue.artefacts("id = ?", [artefact], "LIMIT 1")
            metric = f" {word.metric} {word.value:g}" if word.metric and word.value is not None else ""
            found.append(f"{known[0].name if known else artefact[:12]}{metric}")
        return found

    def _locations(self, name: str) -> list[str]:
        copies = [copy.location for copy in read_copies(self.runs / name) if not copy.problem]
        here = [f"$TRAINYARD_RUNS/{name}"] if (self.runs / name / "checkpoints").is_dir() else []
        return here + sorted(set(copies))


def view_published(run: PublishedRun) -> RunView:
    """A published run as its owners declared it."""
    detail = run.reason or run.declared
    return RunView(
        name=run.name,
        family=None,
        baseline=run.baseline,
        why="",
        state=RunState(run.state, detail, run.steps, run.tokens),
        declared=True,
        best=best_metric(run.metrics.items()),
        gold=[_gold_line(gold.name, gold.metric, gold.value) for gold in run.gold],
        trackers=run.trackers,
        locations=[
            f"{location.at}{' [truncated]' if location.truncated else ''} [unverified]" for location in run.locations
        ],
        notes=[run.notes] if run.notes else [],
    )


def best_metric(found: Iterable[tuple[str, float]]) -> tuple[str, float] | None:
    """The best value of the metric that counts most: the validation loss, else a perplexity, else the first by name."""
    values: dict[str, list[float]] = {}
    for metric, value in found:
        if math.isfinite(value):
            values.setdefault(metric, []).append(value)
    if not values:
        return None
    preferred = [name for name in ("validation_loss", "val_ppl", "perplexity") if name in values]
    metric = preferred[0] if preferred else min(values)
    lower = any(part in metric.lower() for part in LOWER_IS_BETTER)
    return metric, (min if lower else max)(values[metric])


def _gold_line(name: str, metric: str | None, value: float | None) -> str:
    return f"{name} {metric} {value:g}" if metric and value is not None else name


def _trackers(folder: Path) -> list[str]:
    found = ["tensorboard"] if (folder / "tensorboard").is_dir() else []
    if not (folder / "config.yaml").is_file():
        return found
    logging = read_yaml(folder / "config.yaml").get("logging") or {}
    wandb = logging.get("wandb") or {}
    if wandb:
        found.append(f"wandb {wandb['project']}{'/' + wandb['group'] if wandb.get('group') else ''} ({wandb['mode']})")
    return found
