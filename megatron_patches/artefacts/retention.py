"""Which checkpoints stay. Torch-free; a pure function of what there is and of the run's rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Protocol

from megatron_patches.artefacts.folders import inspect, list_checkpoints
from megatron_patches.artefacts.marks import is_damaged, is_pinned, is_verified


class RetentionRules(Protocol):
    """What a run says of its checkpoints: `checkpoint.keep_last` and so on."""

    @property
    def keep_last(self) -> int | None: ...
    @property
    def keep_every_steps(self) -> int | None: ...
    @property
    def keep_best(self) -> int: ...


@dataclass(frozen=True)
class KeptCheckpoint:
    """What the rules ask of a checkpoint that can be resumed from."""

    folder: Path
    step: int
    ephemeral: bool
    validation_loss: float | None
    pinned: bool
    verified: bool


def known_checkpoints(checkpoints: Path) -> list[KeptCheckpoint]:
    """The full checkpoints of a run, newest first.

    Those that are damaged, as far as it was seen, are left out: they stay, and take no good one's place.
    """
    found = []
    for folder in list_checkpoints(checkpoints):
        inspection = inspect(folder, allow_inherited_fault=True)  # a run that goes on with them needs their room too
        manifest = inspection.manifest
        if manifest is not None and not inspection.problems and not is_damaged(folder):
            step, loss = manifest.facts["step"], manifest.facts.get("validation_loss")
            assert isinstance(step, int)
            found.append(
                KeptCheckpoint(
                    folder,
                    step,
                    ephemeral=manifest.facts.get("reason") == "ephemeral",
                    validation_loss=loss if isinstance(loss, float) else None,
                    pinned=is_pinned(folder),
                    verified=is_verified(folder),
                )
            )
    return found


def superfluous(known: Iterable[KeptCheckpoint], rules: RetentionRules) -> list[KeptCheckpoint]:
    """Checkpoints that may be deleted, oldest first.

    Only such as are older than a verified one: whatever becomes of those that were never read back, the newest
    verified checkpoint is never among them.
    """
    ordered = sorted(known, key=lambda each: each.step)
    newest_verified = max((each.step for each in ordered if each.verified), default=-1)
    stays = _wanted(ordered, rules)
    return [each for each in ordered if each.step < newest_verified and each.step not in stays]


def _wanted(ordered: Sequence[KeptCheckpoint], rules: RetentionRules) -> set[int]:
    """Steps of the checkpoints that a rule or a pin keeps."""
    permanent = [each for each in ordered if not each.ephemeral]
    stays = {each.step for each in ordered if each.pinned}
    if rules.keep_last is None:
        return stays | {each.step for each in permanent}
    stays |= {each.step for each in permanent[-rules.keep_last :]}
    if rules.keep_every_steps:
        stays |= {each.step for each in permanent if each.step % rules.keep_every_steps == 0}
    best = sorted((each.validation_loss, each.step) for each in permanent if _is_number(each.validation_loss))
    return stays | {step for _, step in best[: rules.keep_best]}


def _is_number(loss: float | None) -> bool:
    return loss is not None and isfinite(loss)
