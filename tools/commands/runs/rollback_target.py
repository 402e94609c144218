"""The checkpoint that a run goes back to: a step or the best one, on the run's present branch, and whole."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.branch import Beginning, abandoned
from megatron_patches.artefacts.chosen import group_of, loss_of, named_loss, newest_group
from megatron_patches.artefacts.evaluations.best import best_evaluated
from megatron_patches.artefacts.folders import inspect, list_checkpoints, step_of
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import damage_of, verify_and_mark
from megatron_patches.artefacts.reference import parse_reference
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.checkpoint.resume_check import fact_problems
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable, shortened

BEST = "best"
_STEP = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True)
class Candidate:
    """A full checkpoint of a run."""

    folder: Path
    manifest: Manifest | None
    problems: tuple[str, ...]
    """why no run goes on from it, as far as names and sizes tell"""
    left_by: Beginning | None
    """what left it behind"""

    @property
    def step(self) -> int:
        """After which it was saved."""
        return step_of(self.folder)

    @property
    def usable(self) -> bool:
        """Whether the run may go back to it."""
        return self.left_by is None and not self.problems

    @property
    def samples(self) -> int:
        """What the run had been trained on."""
        return whole_of(self.manifest.facts.get("samples") if self.manifest else None) or 0

    @property
    def told_loss(self) -> str:
        """Of the weights, on the group that they went by; empty where they were not validated."""
        facts = self.manifest.facts if self.manifest else {}
        loss = loss_of(facts, group := group_of(facts))
        return "" if loss is None else f"{named_loss(group)} {loss:.4f}"


def candidates(run: RunFolder, launch: Path | None) -> list[Candidate]:
    """The full checkpoints of a run, newest first.

    Args:
        launch: the newest; whether it takes what is invalid because of its data says its configuration.

    Raises:
        TrainyardError: it is not known which were left behind.
    """
    data = read_yaml(launch / CONFIG).get("data") if launch else None
    allow_invalid = isinstance(data, dict) and data.get("allow_invalid") is True
    found = [inspect(folder, allow_invalid) for folder in list_checkpoints(run.checkpoints)]
    left = abandoned(run, {each.folder: each.manifest.facts for each in found if each.manifest})
    return [
        Candidate(
            each.folder,
            each.manifest,
            (*each.problems, *_more_problems(each.folder, each.manifest)),
            left.get(each.folder),
        )
        for each in found
    ]


def choose(run: RunFolder, found: Sequence[Candidate], wanted: str) -> Candidate:
    """The checkpoint that `--to` names.

    Raises:
        TrainyardError: it names none, or one that the run cannot go back to; the nearest are offered.
    """
    usable = [each for each in found if each.usable]
    if not usable:
        raise Missing(
            f"{printable(run.path)} has no checkpoint that it could go back to; tools/checkpoint list says why"
        )
    if wanted == BEST:
        return _best(run, usable)
    if wanted.startswith(f"{BEST}:"):
        reference = parse_reference(f"{run.name}@{wanted}")
        assert reference is not None
        assert reference.by is not None
        among = {each.folder for each in usable}
        wanted = str(step_of(best_evaluated(run, reference.by, allow_inherited_fault=True, among=among).folder))
    if not _STEP.fullmatch(wanted):
        raise TrainyardError(
            f"--to takes the step of a checkpoint, {BEST} or {BEST}:TASK.METRIC, not {shortened(wanted, 40)}; "
            f"{_near(usable)}"
        )
    step = int(wanted)
    named = next((each for each in found if each.step == step), None)
    if named is None:
        raise Missing(f"{run.name} has no full checkpoint of step {step}; {_near(usable, step)}")
    if named.left_by is not None:
        raise Refused(
            f"{named.folder.name} was left behind by launch {named.left_by.launch:04d}, which went back to step "
            f"{named.left_by.step}: no run goes forward by a rollback. Start a child run from it (init_from: "
            f"{run.name}@{step}), or go back to another; {_near(usable, step)}"
        )
    if named.problems:
        raise Damaged(f"{'; '.join(named.problems)}. Name another ({_near(usable, step)})")
    return named


def _best(run: RunFolder, usable: Sequence[Candidate]) -> Candidate:
    """That of the lowest loss on the group that the newest goes by, of equal ones the newest."""
    stated = [(each.manifest.facts, each) for each in usable if each.manifest]
    group = newest_group(facts for facts, _ in stated)
    losses = [(loss_of(facts, group), each) for facts, each in stated]
    validated = [(loss, -each.step, each) for loss, each in losses if loss is not None]
    if not validated:
        raise Missing(
            f"no checkpoint of {run.name} was validated{named_loss(group).removeprefix('validation loss')}, so none is "
            f"the best: name a step; {_near(usable)}"
        )
    return min(validated, key=lambda each: each[:2])[2]


def require_whole(target: Candidate, usable: Sequence[Candidate]) -> None:
    """Read every byte of a checkpoint; raises Damaged where one is not as its manifest says."""
    assert target.manifest is not None
    if problems := verify_and_mark(target.folder, target.manifest, "a rollback"):
        others = [each for each in usable if each is not target]
        raise Damaged(
            f"{'; '.join(problems)}. Name another ({_near(others, target.step)}), or bring back a whole copy of this "
            "one (tools/sync-to-hub pull)"
        )


def _more_problems(folder: Path, manifest: Manifest | None) -> list[str]:
    mark = damage_of(folder)
    damage = [f"{printable(folder)} was found damaged when it was read last: {mark.reason}"] if mark else []
    return [*damage, *(fact_problems(folder, manifest) if manifest else [])]


def _near(usable: Sequence[Candidate], step: int | None = None) -> str:
    """The saved steps around one; the newest and the oldest where none is named."""
    steps = sorted(each.step for each in usable)
    if not steps:
        return "there is no other"
    below = [each for each in steps if step is None or each < step][-1:]
    above = [each for each in steps if step is not None and each > step][:1]
    if step is None:
        return f"saved: {steps[0]}" + (f" to {steps[-1]}" if len(steps) > 1 else "")
    return f"nearest: {' and '.join(map(str, [*below, *above]))}"
