"""Reading a checkpoint back, byte by byte."""

from contextlib import suppress
from pathlib import Path

from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.marks import mark_damaged, verify_and_mark


def verify_checkpoint(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, nothing if it is whole; the folder's mark says so from now on.

    One that is marked invalid is not damaged by that, and gets no mark.
    """
    try:
        inspection = inspect(folder)
    except OSError as error:  # a file whose name no file system takes
        return [f"cannot be read: {error}"]
    if inspection.refused:
        return inspection.problems
    if inspection.manifest is None or inspection.problems:
        with suppress(OSError):  # somebody else's folder: the answer is told all the same
            mark_damaged(folder, "; ".join(inspection.problems))
        return inspection.problems
    try:
        return verify_and_mark(folder, inspection.manifest, "tools/checkpoint verify")
    except OSError as error:
        return [f"cannot be read: {error}"]
