"""A run's checkpoints in a line each, from their manifests."""

from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.folders import inspect, list_checkpoints, step_of
from megatron_patches.artefacts.marks import damage_of, pin_of, verification_of


@dataclass(frozen=True)
class CheckpointLine:
    """What can be said without reading a tensor."""

    name: str
    step: int
    bytes: int
    """0 where the manifest cannot be read"""
    validation_loss: float | None
    reason: str
    verified: str | None
    """when it was read back last"""
    pinned: str | None
    """why"""
    problem: str | None


def list_run(checkpoints: Path) -> list[CheckpointLine]:
    """Newest step first; full ones before those of weights alone."""
    folders = [*list_checkpoints(checkpoints), *list_checkpoints(checkpoints, "weights")]
    return [_line(folder) for folder in sorted(folders, key=step_of, reverse=True)]


def _line(folder: Path) -> CheckpointLine:
    inspection = inspect(folder)
    manifest = inspection.manifest
    facts = manifest.facts if manifest else {}
    loss, verified, pinned = facts.get("validation_loss"), verification_of(folder), pin_of(folder)
    damage = damage_of(folder)
    return CheckpointLine(
        name=folder.name,
        step=step_of(folder),
        bytes=sum(file.size for file in manifest.files) if manifest else 0,
        validation_loss=loss if isinstance(loss, float) else None,
        reason=str(facts.get("reason", "")),
        verified=verified.date if verified else None,
        pinned=pinned.reason if pinned else None,
        problem="; ".join(inspection.problems) or (damage.reason if damage else None),
    )
