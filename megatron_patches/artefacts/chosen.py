"""Which checkpoint of a run is meant where nobody names a step: the newest whole one, the best one, the gold one.
Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import read_standing
from megatron_patches.artefacts.branch import Position, left_behind, number_of_launch, read_beginnings
from megatron_patches.artefacts.folders import inspect, list_checkpoints, step_of
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.json_text import number_of
from megatron_patches.foreign.printable import printable, shortened

VALIDATION_LOSS = "validation_loss"
"""fact of a checkpoint that was validated at its step: the loss that the best goes by, nats per target"""
VALIDATION_LOSSES = "validation_losses"
"""the loss of each validation group, by its name"""
BEST_BY = "best_by"
"""name of the group whose loss `validation_loss` is"""
UNNAMED_GROUP = "validation"
"""name of the one group of a run that names none"""


def group_of(facts: Mapping[str, Any]) -> str:
    """The validation group whose loss a checkpoint's `validation_loss` is."""
    name = facts.get(BEST_BY)
    return name if isinstance(name, str) else UNNAMED_GROUP


def newest_group(newest_first: Iterable[Mapping[str, Any]]) -> str:
    """The group by whose loss the best of a run's checkpoints is told: the newest that names one says it, since a run
    that is resumed may go by another.
    """
    stated = (facts for facts in newest_first if BEST_BY in facts or VALIDATION_LOSS in facts)
    return group_of(next(stated, {}))


def loss_of(facts: Mapping[str, Any], group: str) -> float | None:
    """A checkpoint's validation loss on a group; None where it was not measured, or is no number."""
    losses = facts.get(VALIDATION_LOSSES)
    if isinstance(losses, Mapping):
        return number_of(losses.get(group))
    return number_of(facts.get(VALIDATION_LOSS)) if group_of(facts) == group else None


@dataclass(frozen=True)
class Candidate:
    """A full checkpoint of a run."""

    folder: Path
    manifest: Manifest | None
    why_not: str
    """why it is taken only where it is named; empty where it may be"""

    @property
    def step(self) -> int:
        """The step in its name."""
        return step_of(self.folder)

    def loss(self, group: str) -> float | None:
        """Its loss on a validation group, where it was validated at its step."""
        return None if self.manifest is None else loss_of(self.manifest.facts, group)


@dataclass(frozen=True)
class Best:
    """The best checkpoint of a run."""

    candidate: Candidate
    loss: float
    group: str
    """the validation group that the loss is of"""

    @property
    def folder(self) -> Path:
        """Of the checkpoint."""
        return self.candidate.folder


def candidates(run: RunFolder, allow_inherited_fault: bool = False) -> list[Candidate]:
    """The full checkpoints of a run, the newest first; one is no choice where it is not whole as far as names and sizes
    tell, was found damaged, is marked invalid, or was left behind by a later launch.

    Raises:
        Damaged: it cannot be told where the run's launches began.
    """
    found = [inspect(folder, allow_inherited_fault) for folder in list_checkpoints(run.checkpoints)]
    facts: list[dict[str, Any]] = [dict(each.manifest.facts) if each.manifest else {} for each in found]
    places = [
        Position(number_of_launch(each.get("launch")), step_of(inspection.folder))
        for each, inspection in zip(facts, found, strict=True)
    ]
    leaving = left_behind(places, read_beginnings(run))
    return [
        Candidate(each.folder, each.manifest, _why_not(each.folder, each.problems, left.launch if left else None))
        for each, left in zip(found, leaving, strict=True)
    ]


def _why_not(folder: Path, problems: Sequence[str], left_by: int | None) -> str:
    if problems:
        return shortened(problems[0], 400)
    if is_damaged(folder):
        return f"{folder} was found damaged when it was read last"
    return "" if left_by is None else f"{folder} was left behind by launch {left_by:04d}, which began before it"


def best(run: RunFolder, allow_inherited_fault: bool = False) -> Best:
    """The whole checkpoint with the lowest validation loss on record, of equal ones the newest; the loss is of the
    group that the newest of them goes by.

    Raises:
        Missing: none has one.
    """
    usable = [each for each in candidates(run, allow_inherited_fault) if not each.why_not]
    group = newest_group(each.manifest.facts for each in usable if each.manifest)
    found = [(each.loss(group), each) for each in usable]
    validated = [Best(each, loss, group) for loss, each in found if loss is not None]
    if not validated:
        steps = ", ".join(str(each.step) for _, each in found[:5])
        whole = f"its whole ones are of steps {steps}" if steps else "it has none that is whole"
        raise Missing(
            f"no whole checkpoint of {printable(run.path)} has a {named_loss(group)} on record; {whole}: name a step "
            f"({run.name}@STEP), or validate at steps that are saved (evaluation.every_steps)"
        )
    return min(validated, key=lambda each: each.loss)


def named_loss(group: str) -> str:
    """What the loss of a group is called where it stands for the run's."""
    return "validation loss" if group == UNNAMED_GROUP else f"validation loss on {printable(group)}"


def gold_folder(run: RunFolder) -> Path:
    """The folder of a run's gold checkpoint.

    Raises:
        Missing: there is none, or it is not here.
        TrainyardError: there are several.
    """
    ids = read_standing(run.path).gold
    if not ids:
        raise Missing(
            f"no checkpoint of {printable(run.path)} was promoted; tools/inventory gold {run.name}@STEP does, or name "
            "a step"
        )
    folders = [*list_checkpoints(run.checkpoints), *list_checkpoints(run.checkpoints, "weights")]
    found = [
        folder for folder in folders if (manifest := inspect(folder, True).manifest) is not None and manifest.id in ids
    ]
    if not found:
        named = ", ".join(each[:12] for each in ids)
        raise Missing(
            f"what was promoted of {printable(run.path)} ({named}) is not in its checkpoints, or cannot be used; "
            f"tools/inventory where says where copies lie, tools/sync-to-hub pull {run.name} brings them"
        )
    if len(found) > 1:
        several = ", ".join(printable(each.name) for each in found[:5])
        raise TrainyardError(f"{run.name} has several gold checkpoints ({several}); name a step: {run.name}@STEP")
    return found[0]
