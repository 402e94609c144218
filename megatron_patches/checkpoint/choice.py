"""Which checkpoint of a run to read, outside a launch. Torch-free."""

from pathlib import Path

from data_tools.errors import TrainyardError
from data_tools.manifest import verify_files
from megatron_patches.checkpoint.folders import checkpoint_name, inspect, list_checkpoints
from megatron_patches.run_directory import RunDirectory


def checkpoint_to_read(run: RunDirectory, step: int | None) -> tuple[Path, list[str]]:
    """The newest whole checkpoint of a run, or the one of a step, and what is wrong with newer ones.

    Every byte of its files is compared with its manifest.

    Raises:
        TrainyardError: there is none, or it is damaged; where all are damaged the problems of each are named.
    """
    folders = list_checkpoints(run.checkpoints)
    if not folders:
        raise TrainyardError(f"{run.path} has no checkpoints; train the run, or name another run directory")
    if step is not None:
        wanted = [folder for folder in folders if folder.name == checkpoint_name(step)]
        if not wanted:
            steps = ", ".join(str(int(folder.name.removeprefix("step-"))) for folder in reversed(folders))
            raise TrainyardError(f"{run.path} has no checkpoint of step {step}; it has those of {steps}")
        folders = wanted
    found: list[str] = []
    for folder in folders:
        if not (problems := _damage(folder)):
            return folder, found
        found += problems
    raise TrainyardError(
        f"no whole checkpoint to read in {run.checkpoints}: {'; '.join(found)}. "
        "Restore one from a copy, or name another"
    )


def _damage(folder: Path) -> list[str]:
    inspection = inspect(folder)
    if inspection.manifest is None or inspection.problems:
        return inspection.problems
    return verify_files(inspection.manifest, folder, hashes=True)
