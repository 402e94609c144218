"""A run's evaluations in TensorBoard and Weights & Biases, each at its checkpoint's step.

Both are drawn from the results that are valid and on the run's present branch, all of them each time, so that a step
that is evaluated late, evaluated again, marked invalid or rolled back is right in both. TensorBoard's file has a folder
of its own, which training neither reads nor clears; W&B's record its own id, in the run's group.
"""

import hashlib
import json
from datetime import datetime

from megatron_patches.artefacts.evaluations.present import on_present_branch
from megatron_patches.artefacts.evaluations.shelf import Evaluation, list_evaluations
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.atomic_files import TEMPORARY, fsync_folder, write_atomically
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import is_folder, names_in
from megatron_patches.foreign.printable import shortened
from tools.evaluation_views.wandb_record import Curves, publish_to_wandb

_DIGEST = 16
_EMPTY = 20
"""files that stay, empty: more than are written between two looks of a TensorBoard, which are some seconds apart"""


def publish(run: RunFolder) -> list[str]:
    """Brings both up to date; what is up to date is left as it is.

    Returns:
        A sentence for each thing that could not be read or written: a picture is not worth the evaluation.
    """
    problems: list[str] = []
    try:
        found = on_present_branch(run, list_evaluations(run, problems))
    except (TrainyardError, OSError) as error:
        return [*problems, f"the charts of {run.name} stay as they were: {shortened(error, 300)}"]
    valid = [each for each in found if not each.is_invalid]
    curves = curves_of(valid)
    try:
        _write_tensorboard(run, valid, curves)
    except (TrainyardError, OSError, ImportError) as error:
        problems.append(f"TensorBoard does not show the evaluations of {run.name}: {shortened(error, 300)}")
    return problems + publish_to_wandb(run, curves, digest_of(curves))


def curves_of(evaluations: list[Evaluation]) -> Curves:
    """What is drawn, steps rising; parts of tasks, of which there may be dozens, are for `tools/evals heatmap`."""
    return {
        each.step: {
            f"{EVALS}/{label}.{name}": metric.value
            for label, result in sorted(each.results.items())
            for name, metric in result.metrics.items()
        }
        for each in evaluations
        if each.results
    }


def digest_of(curves: Curves) -> str:
    """The same for the same curves."""
    return hashlib.sha256(json.dumps(sorted(curves.items())).encode()).hexdigest()[:_DIGEST]


def _write_tensorboard(run: RunFolder, evaluations: list[Evaluation], curves: Curves) -> None:
    """A file whose name ends with the digest of what it shows, in place of the one before.

    It is made beside TensorBoard's folder, which shows unfinished files too, and has a name of its own: TensorBoard
    goes on in a file where it had come to. The last ones before it stay, empty: where the file that it had come to is
    gone, a TensorBoard that is open looks for no other. Copies elsewhere keep older files, which the newer one hides
    from step 0 on.
    """
    from megatron_patches.events.tensorboard_files import ScalarFile

    folder = run.tensorboard / EVALS
    older = sorted(name for name in names_in(folder) if "tfevents" in name) if is_folder(folder) else []
    full = [name for name in older if (folder / name).lstat().st_size]
    if [name.endswith(f".{digest_of(curves)}") for name in full] == [True] or not (older or curves):
        return
    partial = run.path / f"{run.tensorboard.name}-{EVALS}{TEMPORARY}"
    file = ScalarFile(partial, 0, older)
    try:
        times = {each.step: _seconds(each) for each in evaluations}
        for step, scalars in curves.items():
            file.add(scalars, step, times[step])
        file.sync()
        folder.mkdir(parents=True, exist_ok=True)
        file.path.rename(folder / f"{file.path.name}.{digest_of(curves)}")
        fsync_folder(folder)
    finally:
        file.close()
        file.path.unlink(missing_ok=True)
    for name in older[-_EMPTY:]:
        write_atomically(folder / name, b"")
    for name in older[:-_EMPTY]:
        (folder / name).unlink(missing_ok=True)
    for left in partial.iterdir():  # of one that was killed
        left.unlink(missing_ok=True)
    partial.rmdir()


def _seconds(evaluation: Evaluation) -> float:
    """When the last of its results was found; 0 where none says so."""
    dates = [result.date for result in evaluation.results.values()]
    try:
        return max(datetime.fromisoformat(date).timestamp() for date in dates)
    except ValueError:
        return 0.0
