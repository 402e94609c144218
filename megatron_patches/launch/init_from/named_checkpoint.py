"""The folder that `init_from` names. Torch-free."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.chosen import best, candidates, gold_folder, named_loss
from megatron_patches.artefacts.evaluations.best import best_evaluated
from megatron_patches.artefacts.folders import checkpoint_name, list_checkpoints, parse_checkpoint_name, step_of
from megatron_patches.artefacts.inventory.names import resolve_run
from megatron_patches.artefacts.reference import CheckpointReference, parse_reference
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.files import is_folder, names_in
from megatron_patches.foreign.names import is_name
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import run_directory

_PASSED_OVER = 3


@dataclass(frozen=True)
class Found:
    """A folder, and why it is this one."""

    folder: Path
    why: str
    passed_over: Sequence[str] = ()


def find_checkpoint(named: str, config: RunConfig) -> Found:
    """The folder that a text names, whatever lies in it.

    Raises:
        Missing: there is no such run or checkpoint; the nearest are named.
        Refused: it is a checkpoint of the run itself.
        TrainyardError: the text is not formed as a reference must be.
    """
    path, reference = CHECKOUT / named, _reference(named)
    if os.sep in named and reference is None and not _is_run(path):
        found = Found(path, "the folder that is named")
    elif reference is None:
        run = RunFolder(path) if os.sep in named else _run_called(named)
        found = _newest(run, config)
    else:
        run = RunFolder(CHECKOUT / reference.run) if os.sep in reference.run else _run_called(reference.run)
        found = _referred(run, reference, config)
    own = run_directory(config).checkpoints.resolve()
    name = parse_checkpoint_name(found.folder.name)
    if found.folder.resolve().parent == own and not (name and name.content == "weights"):
        raise Refused(
            "it is the run itself, which continues its own checkpoints without being told; name another run, or "
            f"weights alone of this one ({config.name}@STEP/weights)"
        )
    return found


def _reference(named: str) -> CheckpointReference | None:
    """None where it is the name of a run, or a path."""
    if os.sep not in named:
        return parse_reference(named)
    if is_folder(CHECKOUT / named):
        return None
    try:
        reference = parse_reference(named)
    except TrainyardError:  # a path with an @ in it
        return None
    is_path = reference is not None and os.sep in reference.run and not is_folder(CHECKOUT / reference.run)
    return None if is_path else reference


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).launches.is_dir() or RunFolder(folder).checkpoints.is_dir()


def _run_called(name: str) -> RunFolder:
    root = runs_root()
    made = [each for each in names_in(root) if is_name(each) and is_folder(root / each)]
    return RunFolder(root / resolve_run(name, made))


def _newest(run: RunFolder, config: RunConfig) -> Found:
    passed_over: list[str] = []
    for each in candidates(run, config.data.allow_invalid):
        if not each.why_not:
            return Found(each.folder, f"the newest whole checkpoint of {run.name}", passed_over)
        passed_over.append(each.why_not)
    weights = list_checkpoints(run.checkpoints, "weights")
    remedy = f"; name its weights alone: {run.name}@{step_of(weights[0])}/weights" if weights else ""
    told = f" ({'; '.join(passed_over[:_PASSED_OVER])})" if passed_over else ""
    raise Missing(f"{run.name} has no whole checkpoint{told}{remedy}")


def _referred(run: RunFolder, reference: CheckpointReference, config: RunConfig) -> Found:
    if reference.by is not None:
        evaluated = best_evaluated(run, reference.by, config.data.allow_invalid)
        return Found(evaluated.folder, f"the best of {run.name} by {evaluated.name}: {evaluated.metric.value:.6g}")
    if reference.chosen == "best":
        found = best(run, config.data.allow_invalid)
        told = f"the best of {run.name} on record: {named_loss(found.group)} {found.loss:.6g}"
        return Found(found.folder, told)
    if reference.chosen is not None:
        return Found(gold_folder(run), f"the gold checkpoint of {run.name}")
    assert reference.step is not None
    full, weights = (run.checkpoints / checkpoint_name(reference.step, content) for content in ("full", "weights"))
    if not reference.weights_only and is_folder(full):
        left = [each.why_not for each in candidates(run, True) if each.folder == full and "left behind" in each.why_not]
        return Found(full, "the step that is named" + "".join(f", although {each}" for each in left))
    if is_folder(weights):
        alone = "" if reference.weights_only else ", of which there are weights alone"
        return Found(weights, f"the step that is named{alone}")
    raise Missing(_not_saved(run, reference, reference.step))


def _not_saved(run: RunFolder, reference: CheckpointReference, step: int) -> str:
    """That a run has no checkpoint of a step, and what else there is."""
    alone = " of weights alone" if reference.weights_only else ""
    said = f"{run.name} has no checkpoint{alone} of step {step} here"
    kept = names_in(run.elsewhere) if run.elsewhere.is_dir() else []
    if any((name := parse_checkpoint_name(each)) and name.step == step for each in kept):
        return (
            f"{said}, its files lie elsewhere (tools/inventory where {run.name}@{step}); bring them back first: "
            f"tools/sync-to-hub pull {run.name} --from ADDRESS --steps {step}"
        )
    folders = list_checkpoints(run.checkpoints, "weights")
    if not reference.weights_only:
        folders += list_checkpoints(run.checkpoints)
    steps = sorted({step_of(each) for each in folders}, key=lambda each: (abs(each - step), each))
    return f"{said}; nearest: {', '.join(map(str, steps[:5]))}" if steps else f"{said}; it has none"
