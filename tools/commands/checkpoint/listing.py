"""A run's checkpoints in a line each, from their manifests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_patches.artefacts.branch import Beginning, abandoned, stated_facts, why_left
from megatron_patches.artefacts.chosen import BEST_BY, VALIDATION_LOSSES, loss_of, newest_group
from megatron_patches.artefacts.folders import Inspection, inspect, list_checkpoints, step_of
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.marks import Mark, damage_of, pin_of, verification_of
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.json_text import number_of
from tools.run_views.views import Inventory


@dataclass(frozen=True)
class CheckpointLine:
    """What can be said without reading a tensor."""

    name: str
    step: int
    bytes: int
    """0 where the manifest cannot be read"""
    validation_loss: float | None
    """on the group by which the best of the run is told"""
    reason: str
    verified: str | None
    """when it was read back last"""
    pinned: str | None
    """why"""
    problem: str | None
    left_behind: str | None = None
    """by which launch or rollback: no launch resumes from it"""
    best_by: str | None = None
    """name of the group by which the best was told when it was saved; None where it names none"""
    validation_losses: dict[str, float] = field(default_factory=dict)
    """by group; empty where it was not validated, or says of no group"""


def list_run(checkpoints: Path) -> list[CheckpointLine]:
    """Newest step first; full ones before those of weights alone. Their losses are of one validation group, the one by
    which the newest on the run's present branch tells the best.
    """
    folders = [*list_checkpoints(checkpoints), *list_checkpoints(checkpoints, "weights")]
    facts = stated_facts(folders)
    left = abandoned(RunFolder(checkpoints.parent), facts)
    ordered = sorted(folders, key=step_of, reverse=True)
    group = newest_group(facts[folder] for folder in ordered if folder in facts and folder not in left)
    return [_line(folder, left.get(folder), group) for folder in ordered]


_GROUPS_TOLD = 8
HEAD = ["checkpoint", "bytes", "validation loss", "reason", "pinned", "problem", "verified"]
"""the least important behind: a narrow terminal has those beneath their row"""


def rows(lines: Sequence[CheckpointLine]) -> list[list[str]]:
    """A checkpoint in the order of `HEAD`."""
    return [
        [
            line.name,
            f"{line.bytes:,}",
            "" if line.validation_loss is None else f"{line.validation_loss:.4f}",
            line.reason,
            line.pinned or "",
            line.problem or line.left_behind or "",
            line.verified or "",
        ]
        for line in lines
    ]


def best_line(run: RunFolder, lines: Sequence[CheckpointLine]) -> tuple[str, list[str]]:
    """The best of the run, as the inventory says it, and whether its checkpoint is among these; then what could not be
    read for it."""
    problems: list[str] = []
    runs = run.path.absolute().parent
    try:
        with open_catalogue(runs) as catalogue:
            best = Inventory(CHECKOUT, runs, catalogue).best(run, problems)
    except TrainyardError as error:
        return "", [*problems, f"the best of the run is not known: {error}"]
    if best is None:
        return "", problems
    here = [line.name for line in lines if best.step is not None and line.step == best.step]
    where = f"saved in {here[0]}" if here else "no checkpoint of that step is here" if best.step is not None else ""
    return f"best of the run: {best.sentence}{f'; {where}' if where else ''}", problems


def groups_line(lines: Sequence[CheckpointLine]) -> str:
    """Of several validation groups, where the losses of all are; empty where there is one."""
    names = list(dict.fromkeys(name for line in lines for name in line.validation_losses))
    if len(names) < 2:
        return ""
    told = ", ".join([*names[:_GROUPS_TOLD], *(["..."] if len(names) > _GROUPS_TOLD else [])])
    return f"validated on {len(names)} groups ({told}); --json has the losses of all"


def _line(folder: Path, left_by: Beginning | None, group: str) -> CheckpointLine:
    """A checkpoint of which something cannot be read has that as its problem."""
    try:
        inspection = inspect(folder)
    except OSError as error:  # a file whose name no file system takes
        inspection = Inspection(folder, None, [f"cannot be read: {error}"])
    problems = list(inspection.problems)

    def mark(read: Callable[[Path], Mark | None]) -> Mark | None:
        try:
            return read(folder)
        except TrainyardError as error:
            problems.append(str(error))
            return None

    verified, pinned, damage = mark(verification_of), mark(pin_of), mark(damage_of)
    facts = inspection.manifest.facts if inspection.manifest else {}
    return CheckpointLine(
        name=folder.name,
        step=step_of(folder),
        bytes=sum(file.size for file in inspection.manifest.files) if inspection.manifest else 0,
        validation_loss=loss_of(facts, group),
        reason=str(facts.get("reason", "")),
        verified=verified.date if verified else None,
        pinned=pinned.reason if pinned else None,
        problem="; ".join(problems) or (damage.reason if damage else None),
        left_behind=why_left(left_by) if left_by else None,
        best_by=best_by if isinstance(best_by := facts.get(BEST_BY), str) else None,
        validation_losses=_losses(facts.get(VALIDATION_LOSSES)),
    )


def _losses(stated: object) -> dict[str, float]:
    found = {name: number_of(loss) for name, loss in stated.items()} if isinstance(stated, Mapping) else {}
    return {name: loss for name, loss in found.items() if loss is not None}
