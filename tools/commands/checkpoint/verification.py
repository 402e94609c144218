"""Reading a checkpoint back, byte by byte."""

from pathlib import Path

from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.marks import mark_damaged, verify_and_mark


def verify_checkpoint(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, nothing if it is whole; the folder's mark says so from now on.

    One that is marked invalid is not damaged by that, and gets no mark.
    """
    inspection = inspect(folder)
    if inspection.refused:
        return inspection.problems
    if inspection.manifest is None or inspection.problems:
        mark_damaged(folder, "; ".join(inspection.problems))
        return inspection.problems
    return verify_and_mark(folder, inspection.manifest, "tools/checkpoint verify")
