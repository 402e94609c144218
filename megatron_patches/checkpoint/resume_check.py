"""Whether a run may continue from what lies in its directory; asked before anything starts. Torch-free."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf, isclose
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.branch import abandoned
from megatron_patches.artefacts.folders import TRAINER_STATE, inspect, list_checkpoints
from megatron_patches.artefacts.manifest import MANIFEST, Manifest
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.identity import differences
from megatron_patches.foreign.printable import shortened
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import Progress
from megatron_patches.sizes import counted

_PROGRESS = {field.name for field in fields(Progress)}


@dataclass(frozen=True)
class SavedStep:
    """A checkpoint as its manifest tells it."""

    folder: Path
    manifest: Manifest
    problems: tuple[str, ...] = ()
    """what is wrong with its files, as far as names and sizes tell"""

    @property
    def step(self) -> int:
        """The step after which it was saved."""
        return self._count("step")

    @property
    def samples(self) -> int:
        """What the run had consumed then."""
        return self._count("samples")

    def _count(self, fact: str) -> int:
        count = self.manifest.facts[fact]
        assert isinstance(count, int)
        return count


def saved_steps(checkpoints: Path, allow_inherited_fault: bool) -> list[SavedStep]:
    """Every checkpoint of the run's present branch whose manifest can be read, the newest first: a resume may fall back
    to any of them.

    Raises:
        Damaged: where a launch began, or the run's manifest, cannot be read.
    """
    found = [inspect(folder, allow_inherited_fault) for folder in list_checkpoints(checkpoints)]
    left = abandoned(RunFolder(checkpoints.parent), {each.folder: each.facts for each in found if each.facts})
    return [
        SavedStep(each.folder, each.manifest, tuple(each.problems))
        for each in found
        if each.manifest is not None and each.folder not in left and not fact_problems(each.folder, each.manifest)
    ]


def fact_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Facts that a resume goes by and that are no numbers: no launch resumes from such a checkpoint."""
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("step", "samples", "tokens"), (int,)),
        **dict.fromkeys(("learning_rate", "next_learning_rate"), (int, float)),
    }
    return [
        f"{folder / MANIFEST}: {fact} is {shortened(manifest.facts.get(fact), 40)}, where a number is expected"
        for fact, expected in kinds.items()
        if type(manifest.facts.get(fact)) not in expected
    ]


def state_problems(folder: Path, manifest: Manifest, trainer: Mapping[str, Any]) -> list[str]:
    """Numbers that a resume goes by and that are none, or are others in the manifest."""
    return [*fact_problems(folder, manifest), *_trainer_problems(folder / TRAINER_STATE, trainer, manifest)]


def _trainer_problems(path: Path, trainer: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    steps = manifest.facts.get("optimizer_steps")
    if type(steps) is not int or steps < 0:
        yield f"{path.with_name(MANIFEST)}: optimizer_steps is {shortened(steps, 40)}, where a count is expected"
    progress = trainer.get("progress")
    if not isinstance(progress, dict) or not progress:
        yield f"{path} does not say how far the run was (progress)"
        return
    for name, value in progress.items():
        if type(value) is not int or value < 0 or name not in _PROGRESS:
            yield f"{path}: progress.{shortened(name, 40)} is {shortened(value, 40)}, where a count is expected"
        elif manifest.facts.get(name) != value:
            told = shortened(manifest.facts.get(name), 40)
            yield f"{path}: progress.{name} is {value}, the manifest says {told}"
    for name in ("callbacks", "engine"):
        if not isinstance(trainer.get(name, {}), dict):
            yield f"{path}: {name} is no object"
    engine = trainer.get("engine", {})
    for name, value in engine.items() if isinstance(engine, dict) else ():
        if type(value) not in (int, float) or not (0 <= value < inf):
            yield f"{path}: engine.{shortened(name, 40)} is {shortened(value, 40)}, where a number is expected"
    if isinstance(engine, dict) and "scale" in engine and not {"clean_steps", "hysteresis_left"} <= engine.keys():
        yield f"{path}: engine lacks a part of the loss scale"


def identity_problems(
    saved: Sequence[SavedStep],
    wanted: dict[str, Any],
    config: RunConfig,
    replaced: Callable[[SavedStep, RunConfig], Collection[str]] = lambda *_: (),
) -> Iterator[str]:
    """Checkpoints of another run than the one whose identity is `wanted`; those that differ alike are told together.

    Args:
        replaced: names of sources that a checkpoint had not read and that were replaced since.
    """
    alike: dict[tuple[str, ...], list[SavedStep]] = {}
    for each in saved:
        identity = each.manifest.facts.get("identity")
        found = differences(identity if isinstance(identity, dict) else {}, wanted, config, replaced(each, config))
        alike.setdefault(tuple(found), []).append(each)
    for phrases, group in alike.items():
        if phrases:
            yield (
                f"{_named(group)} of another run: {'; '.join(phrases)}. Restore these settings to continue it; to "
                "train its weights on with other ones, begin a child run at step 0 (tools/runs new, and in it "
                f"init_from: {config.name}@{group[0].step}); or move the run directory away to start over"
            )


def _named(group: Sequence[SavedStep]) -> str:
    newest, older = group[0].folder, len(group) - 1
    if not older:
        return f"{newest} is a checkpoint"
    return f"{newest} and {'an older one' if older == 1 else f'{older} older ones'} are checkpoints"


def newest_whole(saved: Sequence[SavedStep]) -> SavedStep | None:
    """What a resume will take, as far as names and sizes tell: the newest with nothing wrong."""
    return next((each for each in saved if not each.problems), None)


def length_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """A run that is to end before the newest checkpoint, or has ended with it."""
    timetable, training = config.timetable, config.training
    steps, unit = timetable.steps, training.length_unit
    reached = timetable.position(newest.step, unit)
    if newest.step > steps:
        key = training.end_key
        least = reached - training.lengths[-2] if key == "extend_by" else reached
        yield (
            f"{newest.folder} is beyond the end of the run, which has {counted(steps, 'step')}. Set training.{key} to "
            f"{least} or more (what a launch was given on its command line must be given again, or written into the "
            "YAML)"
        )
    elif newest.step == steps and not is_damaged(newest.folder):  # a resume looks at it again, and may fall back
        given = training.extend_to or training.lengths[1:]
        longer = f"'[{', '.join(map(str, [*given, 'N']))}]'" if given else "N"
        yield (
            f"the run has ended: {newest.folder} is of its last step, {steps:,}, and nothing is left to train on. To "
            f"extend it, add --training.extend_to {longer}, N above {training.lengths[-1]} {unit}; to train its "
            "weights on another schedule, begin a child run (init_from)"
        )


def learning_rate_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """A learning rate that would jump: the configuration must give what the checkpoint was saved at. What follows is
    the schedule's own course, which is continuous.

    A jump is accepted at the step that `checkpoint.allow_rate_jump_at` names. Beyond the run's end no rate is planned.
    """
    jump = rate_jump(newest, config)
    if jump is None or config.checkpoint.allow_rate_jump_at == newest.step:
        return
    step, (before, now), length = newest.step, jump, f"training.{config.training.length_unit}"
    named = config.checkpoint.allow_rate_jump_at
    elsewhere = "" if named is None else f" (checkpoint.allow_rate_jump_at names step {named}, not this one)"
    if config.training.extend_to or config.training.extend_by:
        extended = f"training.{config.training.end_key}"
        longer = f"to extend it again, add to {extended}: each extension begins at the end before it"
    else:
        longer = f"to train longer, keep {length} and set training.extend_to"
    yield (
        f"the learning rate would jump: {newest.folder} was saved at {before:.6g}, the configuration gives {now:.6g} "
        f"at its step, {step}{elsewhere}. Restore schedule, optimizer.learning_rate and {length}; {longer}; to jump "
        f"there on purpose, add --checkpoint.allow_rate_jump_at {step}; to train its weights on another schedule from "
        "step 0 on, begin a child run (init_from)"
    )


def rate_jump(newest: SavedStep, config: RunConfig) -> tuple[float, float] | None:
    """The rate of the step that was saved, then and as the configuration has it now, where they differ.

    None at step 0, before which no update was made.
    """
    if not 0 < newest.step <= config.timetable.steps:
        return None
    before, now = newest.manifest.facts["learning_rate"], config.learning_rate(newest.step)
    assert isinstance(before, (int, float))
    return None if isclose(now, before, rel_tol=1e-6, abs_tol=1e-12) else (before, now)
