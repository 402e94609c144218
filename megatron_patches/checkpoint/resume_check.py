"""Whether a run may continue from what lies in its directory; asked before anything starts. Torch-free."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf, isclose
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.branch import Position, left_behind, number_of_launch, read_beginnings
from megatron_patches.artefacts.folders import TRAINER_STATE, Inspection, inspect, list_checkpoints, step_of
from megatron_patches.artefacts.manifest import MANIFEST, Manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.identity import differences
from megatron_patches.foreign.printable import shortened
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import Progress
from megatron_patches.sizes import counted

_UNKNOWN = 10**10  # no rollback leaves it behind
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
    """Every checkpoint whose manifest can be read, the newest first: a resume may fall back to any of them."""
    found = [inspect(folder, allow_inherited_fault) for folder in list_checkpoints(checkpoints)]
    found = on_branch(checkpoints, found)
    return [
        SavedStep(each.folder, each.manifest, tuple(each.problems))
        for each in found
        if each.manifest is not None and not fact_problems(each.folder, each.manifest)
    ]


def on_branch(checkpoints: Path, found: list[Inspection]) -> list[Inspection]:
    """Stand-in: those checkpoints that no rollback left behind; another branch has it."""
    launches = [each.manifest.facts.get("launch") if each.manifest else None for each in found]
    saved = [
        Position(number_of_launch(launch) if launch else _UNKNOWN, step_of(each.folder))
        for launch, each in zip(launches, found, strict=True)
    ]
    left = left_behind(saved, read_beginnings(RunFolder(checkpoints.parent)))
    return [each for each, beginning in zip(found, left, strict=True) if beginning is None]


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


def identity_problems(saved: Sequence[SavedStep], wanted: dict[str, Any], config: RunConfig) -> Iterator[str]:
    """Checkpoints of another run than the one whose identity is `wanted`; those that differ alike are told together."""
    alike: dict[tuple[str, ...], list[SavedStep]] = {}
    for each in saved:
        identity = each.manifest.facts.get("identity")
        found = differences(identity if isinstance(identity, dict) else {}, wanted, config)
        alike.setdefault(tuple(found), []).append(each)
    for phrases, group in alike.items():
        if phrases:
            yield (
                f"{_named(group)} of another run: {'; '.join(phrases)}. Restore these settings to continue it, start a "
                "new run under another name (tools/runs new), or move the run directory away to start over"
            )


def _named(group: Sequence[SavedStep]) -> str:
    newest, older = group[0].folder, len(group) - 1
    if not older:
        return f"{newest} is a checkpoint"
    return f"{newest} and {'an older one' if older == 1 else f'{older} older ones'} are checkpoints"


def length_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """A run that is to end before the newest checkpoint."""
    steps, unit = config.timetable.steps, config.training.length_unit
    if newest.step > steps:
        yield (
            f"{newest.folder} is beyond the end of the run, which has {counted(steps, 'step')}. Set training.{unit} to "
            f"{config.timetable.position(newest.step, unit)} or more (what a launch was given on its command line must "
            "be given again, or written into the YAML)"
        )


def learning_rate_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """A learning rate that would jump: the last step's, and the one that was planned to follow, must be what the
    configuration plans there. Beyond the run's end it plans none.
    """
    if newest.step > config.timetable.steps:
        return
    facts, length = newest.manifest.facts, f"training.{config.training.length_unit}"
    for at, planned in ((newest.step, facts["learning_rate"]), (newest.step + 1, facts["next_learning_rate"])):
        assert isinstance(planned, (int, float))
        now = config.learning_rate(at)
        if not isclose(now, planned, rel_tol=1e-6, abs_tol=1e-12):
            yield (
                f"the learning rate would jump: {newest.folder} planned {planned:.6g} for step {at}, the configuration "
                f"gives {now:.6g} there. Restore schedule, optimizer.learning_rate and {length} (set "
                f"schedule.decay_end to the old end where {length} grows), or start a new run under another name"
            )
            return  # one fault: the other step's rate is put right with it
