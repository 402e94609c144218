"""Which checkpoints of a run to read from, outside a launch. Torch-free."""

from pathlib import Path

from megatron_patches.artefacts.branch import abandoned, stated_facts
from megatron_patches.artefacts.folders import list_checkpoints, step_of
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing


def checkpoints_with_weights(run: RunFolder, step: int | None = None) -> list[Path]:
    """Folders to read a run's weights from, the newest step first; those of one step where it is given. What was left
    behind comes last.

    Where a step has a full checkpoint and one of weights alone, the latter comes first. Whether they are whole is seen
    when they are read.

    Raises:
        Missing: there is none; the steps that there are are named.
        Damaged: where a launch began, or the run's manifest, cannot be read.
    """
    folders = [*list_checkpoints(run.checkpoints, "weights"), *list_checkpoints(run.checkpoints)]
    left = abandoned(run, stated_facts(folders))
    folders.sort(key=lambda folder: (folder in left, -step_of(folder)))
    if not folders:
        raise Missing(f"{run.path} has no checkpoints; train the run, or name another run directory")
    if step is None:
        return folders
    wanted = [folder for folder in folders if step_of(folder) == step]
    if not wanted:
        steps = ", ".join(str(known) for known in sorted({step_of(folder) for folder in folders}))
        raise Missing(f"{run.path} has no checkpoint of step {step}; it has those of {steps}")
    return wanted
