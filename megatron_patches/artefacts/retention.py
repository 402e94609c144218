"""Which checkpoints stay: one set of reasons, for a run that tidies up behind its saves, for `tools/inventory gc` and
for `tools/sync-to-hub --delete-local`. Torch-free; functions of what there is and of rules.

A reason keeps a checkpoint from all three. They differ in what else they ask before they delete: a run, that a newer
checkpoint was read back; the others, that a verified whole copy lies at a location.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Protocol

from megatron_patches.artefacts.annotations import read_standing
from megatron_patches.artefacts.branch import abandoned, stated_facts
from megatron_patches.artefacts.chosen import loss_of, newest_group
from megatron_patches.artefacts.folders import Content, inspect, list_checkpoints, step_of
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import is_damaged, is_pinned, is_verified
from megatron_patches.artefacts.run_folder import STOPPED, RunFolder

ASKED_FOR = "asked for"
"""beginning of the reason of a save that somebody asked for"""


class RetentionRules(Protocol):
    """What a run says of its checkpoints: `checkpoint.keep_last` and so on."""

    @property
    def keep_last(self) -> int | None: ...
    @property
    def keep_every_steps(self) -> int | None: ...
    @property
    def keep_best(self) -> int: ...


@dataclass(frozen=True)
class CopiedRetention:
    """Rules for checkpoints of which a verified copy lies elsewhere."""

    keep_last: int | None = 2
    """number of newest checkpoints to keep for each run"""
    keep_every_steps: int | None = None
    """also keep checkpoints at steps divisible by this"""
    keep_best: int = 0


@dataclass(frozen=True)
class KeptCheckpoint:
    """What the rules ask of a checkpoint that is in order."""

    folder: Path
    step: int
    ephemeral: bool
    """it goes as soon as a newer one is verified"""
    validation_loss: float | None
    """on the group that the best goes by"""
    pinned: bool
    verified: bool
    gold: bool = False
    content: Content = "full"
    at_stop: bool = False
    """it was saved because its launch was asked to stop: what the run goes on from, until it saves again"""
    asked_for: bool = False
    """somebody asked for it while the run was training; its pin keeps it"""

    @property
    def regular(self) -> bool:
        """Whether it is one of those that `keep_last` counts: full, and saved at an interval or at the end."""
        return self.content == "full" and not (self.ephemeral or self.at_stop or self.asked_for)


def known_checkpoints(
    run: RunFolder, content: Content = "full", allow_inherited_fault: bool = True
) -> list[KeptCheckpoint]:
    """The checkpoints of a run's present branch that are in order, newest first.

    Those that are damaged, as far as it was seen, or were left behind are left out: they take no good one's place.
    Their losses are of one validation group, the one that the newest goes by.

    Args:
        allow_inherited_fault: also those that are invalid because of their data: a run that goes on with them needs
            their room too.

    Raises:
        Damaged: what people said about the run is, so that its gold is not known; or where a launch began.
    """
    gold = read_standing(run.path).gold
    inspections = [inspect(folder, allow_inherited_fault) for folder in list_checkpoints(run.checkpoints, content)]
    saved = {each.folder: each.facts for each in inspections if each.facts is not None}
    if content == "weights":
        saved |= stated_facts(list_checkpoints(run.checkpoints))
    left = abandoned(run, saved)
    good = [
        (each.folder, each.manifest)
        for each in inspections
        if each.manifest is not None and each.folder not in left and not each.problems and not is_damaged(each.folder)
    ]
    group = newest_group(manifest.facts for _, manifest in good)
    return [
        KeptCheckpoint(
            folder,
            step_of(folder),
            ephemeral=manifest.facts.get("reason") == "ephemeral",
            validation_loss=loss_of(manifest.facts, group),
            pinned=is_pinned(folder),
            verified=is_verified(folder),
            gold=manifest.id in gold,
            content=content,
            at_stop=_was_a_stop(run, manifest),
            asked_for=str(manifest.facts.get("reason")).startswith(ASKED_FOR),
        )
        for folder, manifest in good
    ]


def _was_a_stop(run: RunFolder, manifest: Manifest) -> bool:
    """Earlier versions wrote `end` at a stop too; the launch's folder tells which it was."""
    reason, launch = manifest.facts.get("reason"), manifest.facts.get("launch")
    if reason != "end" or not isinstance(launch, str) or not launch.isdecimal():
        return reason == "stop"
    return (run.launches / launch / STOPPED).exists()


def superfluous(known: Iterable[KeptCheckpoint], rules: RetentionRules) -> list[KeptCheckpoint]:
    """Checkpoints that a run may delete, oldest first.

    Only such as are older than a verified one: whatever becomes of those that were never read back, the newest
    verified checkpoint is never among them.
    """
    ordered = sorted(known, key=lambda each: each.step)
    newest_verified = max((each.step for each in ordered if each.verified), default=-1)
    stays = reasons_to_stay(ordered, rules)
    return [each for each in ordered if each.step < newest_verified and each.folder not in stays]


def reasons_to_stay(known: Iterable[KeptCheckpoint], rules: RetentionRules) -> dict[Path, str]:
    """By folder, why a checkpoint stays; those that no rule, pin or promotion keeps are left out.

    `keep_last` and `keep_best` count regular checkpoints: what is saved between them, at a stop, because somebody
    asked, or for the moment, takes no regular one's place. One of these that is among the best of all stays beside
    them, unless it was for the moment.
    """
    ordered = sorted(known, key=lambda each: each.step)
    full = [each for each in ordered if each.content == "full"]
    lasting = [each for each in full if not each.ephemeral]
    regular = [each for each in full if each.regular]
    reasons: dict[Path, str] = {}
    if rules.keep_last is None:
        _add(reasons, lasting, "the run keeps all")
    else:
        _add(reasons, full[-1:], "the newest, from which the run resumes")
        last = f"one of the newest {rules.keep_last}, from which the run resumes"
        _add(reasons, regular[-rules.keep_last :], last)
        if every := rules.keep_every_steps:
            dividing = [each for each in ordered if not each.ephemeral and each.step % every == 0]
            _add(reasons, dividing, f"step divides by {every}")
        for group in (lasting, regular):
            best = sorted((each for each in group if _is_number(each.validation_loss)), key=_by_loss)
            _add(reasons, best[: rules.keep_best], f"one of the {rules.keep_best} of lowest validation loss")
    _add(reasons, [each for each in ordered if each.gold], "gold")
    _add(reasons, [each for each in ordered if each.pinned], "pinned")
    return reasons


def _add(reasons: dict[Path, str], checkpoints: Sequence[KeptCheckpoint], reason: str) -> None:
    """The strongest reason comes last and is the one that is told."""
    reasons.update({each.folder: reason for each in checkpoints})


def _by_loss(checkpoint: KeptCheckpoint) -> tuple[float, int]:
    assert checkpoint.validation_loss is not None
    return checkpoint.validation_loss, checkpoint.step


def _is_number(loss: float | None) -> bool:
    return loss is not None and isfinite(loss)
