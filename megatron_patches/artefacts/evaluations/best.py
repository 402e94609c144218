"""The best checkpoint of a run by an evaluation's metric, and the folder that a reference to a checkpoint names."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.branch import abandoned, stated_facts
from megatron_patches.artefacts.chosen import best, candidates, gold_folder
from megatron_patches.artefacts.evaluations.result import Metric, TaskResult, metrics_of
from megatron_patches.artefacts.evaluations.shelf import Evaluation, list_evaluations
from megatron_patches.artefacts.folders import checkpoint_name, inspect, list_checkpoints, step_of
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.reference import CheckpointReference
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing, Refused
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.sizes import first_of

_NAMED = 5


@dataclass(frozen=True)
class BestEvaluated:
    """The best checkpoint of a run by a metric."""

    folder: Path
    result: TaskResult
    name: str
    """of the metric: hellaswag.acc_norm"""
    metric: Metric


@dataclass(frozen=True)
class _Scored:
    evaluation: Evaluation
    result: TaskResult
    metric: Metric

    @property
    def order(self) -> tuple[float, int]:
        """Of equal ones the earlier step comes first."""
        value = -self.metric.value if self.metric.higher_is_better else self.metric.value
        return value, self.evaluation.step


def referred_folder(run: RunFolder, reference: CheckpointReference, allow_inherited_fault: bool = False) -> Path:
    """The folder of a run's gold checkpoint, or of its best one, by the validation loss or by an evaluation.

    Raises:
        Missing: there is none.
        Refused: evaluations that cannot be compared decide it.
        TrainyardError: several are gold.
    """
    if reference.chosen == "gold":
        return gold_folder(run)
    if reference.by is not None:
        return best_evaluated(run, reference.by, allow_inherited_fault).folder
    return best(run, allow_inherited_fault).folder


def best_evaluated(
    run: RunFolder, name: str, allow_inherited_fault: bool = False, among: Collection[Path] | None = None
) -> BestEvaluated:
    """The best checkpoint by a metric, of those that are here and whole, lie on the present branch and have a valid
    evaluation; of equal ones the earlier.

    Args:
        name: of the metric: hellaswag.acc_norm, or mmlu.anatomy.acc for a part of a task.
        among: only these folders; None means all of the run.

    Raises:
        Missing: none has this metric; the nearest are named.
        Refused: its values are of several definitions of the task, which nothing makes comparable.
    """
    problems: list[str] = []
    evaluations = [each for each in list_evaluations(run, problems) if not each.is_invalid]
    usable = _usable(run, allow_inherited_fault)
    here = {step: each for step, each in usable.items() if among is None or each.folder in among}
    scored = [found for each in evaluations if each.step in here and (found := _scored(each, name, here[each.step]))]
    if not scored:
        raise Missing(_none_has(run, name, evaluations, problems))
    definitions: dict[str, list[_Scored]] = {}
    for found in scored:
        definitions.setdefault(found.result.definition, []).append(found)
    if len(definitions) > 1:
        raise Refused(_several(run, name, list(definitions.values())))
    chosen = min(scored, key=lambda each: each.order)
    return BestEvaluated(here[chosen.evaluation.step].folder, chosen.result, name, chosen.metric)


@dataclass(frozen=True)
class _Usable:
    folder: Path
    ids: frozenset[str]
    """of the checkpoint: of full one and weights alone the same tensors were evaluated"""


def _usable(run: RunFolder, allow_inherited_fault: bool) -> dict[int, _Usable]:
    """By step, the checkpoint that may be chosen; its weights alone where nothing else is here."""
    weights = list_checkpoints(run.checkpoints, "weights")
    found: dict[int, _Usable] = {}
    if weights:
        facts = stated_facts([*weights, *list_checkpoints(run.checkpoints)])
        left = abandoned(run, facts)
        for folder in weights:
            inspection = inspect(folder, allow_inherited_fault)
            if inspection.manifest and not inspection.problems and not is_damaged(folder) and folder not in left:
                # its parents are the full checkpoint, and what that one came from: of other steps
                found[step_of(folder)] = _Usable(folder, _ids(inspection.manifest))
    for each in candidates(run, allow_inherited_fault):
        if each.manifest is not None and not each.why_not:
            beside = _weights_beside(run, each.step, each.manifest.id)
            found[each.step] = _Usable(each.folder, frozenset({each.manifest.id}) | beside)
    return found


def _ids(manifest: Manifest) -> frozenset[str]:
    return frozenset({manifest.id, *manifest.parents})


def _weights_beside(run: RunFolder, step: int, full: str) -> frozenset[str]:
    manifest = inspect(run.checkpoints / checkpoint_name(step, "weights"), True).manifest
    return frozenset({manifest.id}) if manifest is not None and full in manifest.parents else frozenset()


def _scored(evaluation: Evaluation, name: str, of: _Usable) -> _Scored | None:
    for label in sorted(evaluation.results, key=len, reverse=True):
        result = evaluation.results[label]
        metric = metrics_of(result).get(name) if name.startswith(f"{label}.") else None
        if metric is not None and result.checkpoint in of.ids:
            return _Scored(evaluation, result, metric)
    return None


def near_metrics(name: str, known: Iterable[str]) -> str:
    """What there is in place of a metric that is not known, for messages."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    task = [each for each in names if each.startswith(f"{name}.")]  # a task alone was named, without its metric
    offered = list(dict.fromkeys([*task[:_NAMED], *near])) or names[:_NAMED]
    return f"nearest: {', '.join(shortened(each, 80) for each in offered)}" if offered else ""


def _none_has(run: RunFolder, name: str, evaluations: Sequence[Evaluation], problems: Sequence[str]) -> str:
    known = {each for found in evaluations for result in found.results.values() for each in metrics_of(result)}
    shown = shortened(name, 80)
    passed = f" (passed over: {problems[0]})" if problems else ""
    if name in known:
        steps = [each.step for each in evaluations for result in each.results.values() if name in metrics_of(result)]
        return (
            f"{run.name} has {shown} of steps {first_of(steps)}, and none of these checkpoints is here, whole and on "
            f"the present branch{passed}; name a step ({run.name}@STEP), or bring one back: tools/sync-to-hub pull "
            f"{run.name}"
        )
    offer = near_metrics(name, known) or "it has no valid evaluation: tools/evals run makes one"
    return f"no checkpoint of {printable(run.path)} has a metric {shown}; {offer}{passed}"


def _several(run: RunFolder, name: str, groups: Sequence[Sequence[_Scored]]) -> str:
    told = [
        f"{group[0].result.definition[:8]} (version {shortened(group[0].result.version, 40)}, "
        f"{group[0].result.shots}-shot) of steps {first_of([each.evaluation.step for each in group])}"
        for group in groups
    ]
    label = groups[0][0].result.label
    return (
        f"{shortened(name, 80)} of {run.name} has {len(told)} definitions, whose values are not compared: "
        f"{'; '.join(told)}. Evaluate these steps with one: tools/evals run {run.name} --tasks "
        f"{groups[0][0].result.task} --again, or remove the results {label}.json of one of them"
    )
