"""Which evaluations are of checkpoints on a run's present branch: also of checkpoints that are gone since."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.branch import abandoned, stated_facts
from megatron_patches.artefacts.descent import ORIGIN
from megatron_patches.artefacts.evaluations.shelf import Evaluation
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder


def on_present_branch(run: RunFolder, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those whose checkpoints no later launch and no rollback left behind. One that does not state its
    checkpoint's way stays among them.

    Raises:
        Damaged: a record of where a launch began, or the run's manifest, cannot be read.
    """
    ways: dict[Path, Mapping[str, Any]] = {each.folder: way for each in evaluations if (way := _way_of(each))}
    left = abandoned(run, {**stated_facts(list_checkpoints(run.checkpoints)), **ways})
    return [each for each in evaluations if each.folder not in left]


def _way_of(evaluation: Evaluation) -> Mapping[str, Any] | None:
    way = evaluation.manifest.facts.get(ORIGIN) if evaluation.manifest else None
    return way if isinstance(way, dict) else None
