"""Reading a checkpoint back, byte by byte."""

from pathlib import Path

from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.manifest import verify_files
from megatron_patches.artefacts.marks import mark_damaged, mark_verified


def verify_checkpoint(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, nothing if it is whole; the folder's mark says so from now on."""
    inspection = inspect(folder)
    problems = inspection.problems
    if inspection.manifest is not None and not problems:
        problems = verify_files(inspection.manifest, folder, hashes=True)
    if problems:
        mark_damaged(folder, "; ".join(problems))
    else:
        mark_verified(folder, "tools/checkpoint verify")
    return problems
