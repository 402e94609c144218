"""Finding the newest whole checkpoint, together: every rank hashes its share of the files, all take the same one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from data_tools.atomic_files import hash_file
from data_tools.errors import TrainyardError
from data_tools.manifest import Manifest
from megatron_patches.checkpoint.folders import TRAINER_STATE, inspect, list_checkpoints
from megatron_patches.parallel.process_groups import ProcessGroups


@dataclass(frozen=True)
class Resumable:
    """A checkpoint whose every byte was compared with its manifest."""

    folder: Path
    manifest: Manifest
    trainer: dict[str, Any]


def newest_whole_checkpoint(
    checkpoints: Path, groups: ProcessGroups, report: Callable[[Path, list[str]], None]
) -> Resumable | None:
    """The newest checkpoint that is whole, None where the run has none; `report` hears of damaged ones.

    Raises:
        TrainyardError: there are checkpoints, and all of them are damaged: starting over would be silent loss.
    """
    folders = groups.from_rank_0([str(path) for path in list_checkpoints(checkpoints)])
    for folder in map(Path, folders):
        manifest, problems = _verify_together(folder, groups)
        if manifest is not None and not problems:
            return Resumable(folder, manifest, json.loads((folder / TRAINER_STATE).read_text()))
        report(folder, problems)
    if folders:
        raise TrainyardError(
            f"all {len(folders)} checkpoints in {checkpoints} are damaged (see above); restore one from a copy, or "
            "move the folder away to start the run over"
        )
    return None


def _verify_together(folder: Path, groups: ProcessGroups) -> tuple[Manifest | None, list[str]]:
    inspection = inspect(folder)
    problems = inspection.problems
    if inspection.manifest is not None and not problems:
        mine = inspection.manifest.files[groups.rank :: groups.layout.world_size]
        problems = [problem for record in mine if (problem := _damage(folder / record.path, record.sha256))]
    gathered: list[list[str]] = [[] for _ in range(groups.layout.world_size)]
    dist.all_gather_object(gathered, problems, group=groups.control_group)
    return inspection.manifest, sorted({problem for rank_problems in gathered for problem in rank_problems})


def _damage(path: Path, sha256: str) -> str | None:
    try:
        return None if hash_file(path)[0] == sha256 else f"{path} does not have the sha256 that its manifest says"
    except OSError as error:
        return f"{path} cannot be read: {error}"
