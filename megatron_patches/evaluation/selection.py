"""Which checkpoints of a run are meant to be evaluated: all, the best, every 10B tokens. Torch-free."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.branch import abandoned, stated_facts
from megatron_patches.artefacts.evaluations.best import referred_folder
from megatron_patches.artefacts.folders import inspect, list_checkpoints, parse_checkpoint_name, step_of
from megatron_patches.artefacts.inventory.search import number_range
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.reference import CheckpointReference
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable, shortened

FORMS = "all, new, last, best, gold, 1000, 1000,2000, 1000:5000, every-500 (steps) or every-10B (tokens)"
_BEST_BY = "best:"
_EVERY = re.compile(r"every[ :=-]?([0-9]+(?:\.[0-9]+)?)([KMBTkmbt]?)")
_RANGE = re.compile(r"[0-9.]+[A-Za-z]?(:([0-9.]+[A-Za-z]?)?)?|:[0-9.]+[A-Za-z]?")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
Word = Literal["all", "new", "last", "best", "gold", "every", "ranges"]


@dataclass(frozen=True)
class Which:
    """What was asked for."""

    word: Word
    """`new` is all: what has its results already is passed over in any case"""
    every: int = 0
    by: Literal["step", "tokens"] = "step"
    """what `every` counts"""
    ranges: tuple[tuple[int, int], ...] = ()
    """of steps, both ends among them"""
    metric: str | None = None
    """of an evaluation, by which it is the best; None: by its validation loss"""
    weights_only: bool = False
    """the weights alone of a step, where it has a full checkpoint too"""

    @property
    def named(self) -> tuple[int, ...]:
        """Steps that stand for themselves: a checkpoint of one that cannot be used is refused, not passed over."""
        return tuple(first for first, last in self.ranges if first == last)


def parse_which(text: str) -> Which:
    """What a word of the command line asks for.

    Raises:
        TrainyardError: it is none of the forms.
    """
    word = text.strip()
    if word in ("all", "new", "last", "best", "gold"):
        return Which(word)  # type: ignore[arg-type]
    if word.startswith(_BEST_BY):
        return Which("best", metric=word.removeprefix(_BEST_BY))
    if found := _EVERY.fullmatch(word):
        unit = found[2].upper()
        number = float(found[1]) * _UNITS[unit]
        if number < 1 or number != int(number):
            raise TrainyardError(f"--steps {shortened(text, 60)}: the number after every- must be whole and positive")
        return Which("every", int(number), "tokens" if unit else "step")
    parts = [part.strip() for part in word.split(",")]
    if not all(map(_RANGE.fullmatch, parts)):
        raise TrainyardError(f"--steps {shortened(text, 60)}: give {FORMS}")
    ranges = tuple(number_range(part, "--steps") for part in parts)
    if backwards := next((each for each in ranges if each[0] > each[1]), None):
        raise TrainyardError(f"--steps {backwards[0]}:{backwards[1]} ends before it begins; turn it round")
    return Which("ranges", ranges=ranges)


def which_named(reference: CheckpointReference) -> Which:
    """What RUN@STEP, RUN@best or RUN@gold asks for."""
    if reference.step is not None:
        return Which("ranges", ranges=((reference.step,) * 2,), weights_only=reference.weights_only)
    return Which("gold" if reference.chosen == "gold" else "best", metric=reference.by)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that can be evaluated."""

    folder: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        """Of training."""
        return step_of(self.folder)

    @property
    def tokens(self) -> int | None:
        """That the model was trained on by then; None where its manifest does not say."""
        return whole_of(self.manifest.facts.get("tokens"))

    @property
    def ids(self) -> tuple[str, ...]:
        """By which its evaluation is known: its own, and that of the same step with, or without, the optimizer."""
        manifest = self.manifest
        if manifest.facts.get("content") == "weights":
            return (manifest.id, *manifest.parents[:1])
        try:
            return manifest.id, weights_of(manifest).id
        except Refused:  # weights and optimizer in one file
            return (manifest.id,)


@dataclass(frozen=True)
class Selection:
    """What was chosen, the earliest step first."""

    candidates: tuple[Candidate, ...]
    passed_over: tuple[str, ...] = ()
    """what is wrong with others that were asked for, a sentence each"""


def select(run: RunFolder, which: Which) -> Selection:
    """The checkpoints of a run that are meant and can be used, full or of weights alone; of a step one.

    Those that a later launch left behind are taken only where their step is named.

    Raises:
        Missing: a step that is named has none; there is no best one, or no gold one; or the run has none that can be
            used.
        Refused: one that is named is marked invalid. Damaged: it, or where a launch began, cannot be read.
    """
    if which.word in ("best", "gold"):
        reference = CheckpointReference(run.name, None, chosen=which.word, by=which.metric)
        return Selection((candidate_at(referred_folder(run, reference)),))
    named = set(which.named)
    full = [] if which.weights_only else list_checkpoints(run.checkpoints)
    folders = [*full, *list_checkpoints(run.checkpoints, "weights")]
    if unknown := sorted(named - {step_of(folder) for folder in folders}):
        raise Missing(_without_step(run, unknown[0], folders))
    left = abandoned(run, stated_facts(folders))
    found: dict[int, Candidate] = {}
    problems: dict[int, list[TrainyardError]] = {}
    # of a step what lies on the present branch comes first, and the full checkpoint before its weights
    for folder in sorted(folders, key=lambda each: (each in left, not _is_full(each))):
        step = step_of(folder)
        if step in found or (folder in left and step not in named) or not _is_asked(which, step):
            continue
        try:
            found[step] = candidate_at(folder)
        except TrainyardError as error:
            problems.setdefault(step, []).append(error)
    for step in sorted(named - set(found)):
        raise problems[step][0]
    ordered = [found[step] for step in sorted(found)]
    told = [str(error) for step in sorted(problems) for error in problems[step]]
    return Selection(tuple(_of_word(which, ordered)), tuple(told))


def _is_asked(which: Which, step: int) -> bool:
    return not which.ranges or any(first <= step <= last for first, last in which.ranges)


def _is_full(folder: Path) -> bool:
    name = parse_checkpoint_name(folder.name)
    return name is not None and name.content == "full"


def candidate_at(folder: Path) -> Candidate:
    """The checkpoint of a folder, whole as far as names and sizes tell.

    Raises:
        Refused: it is marked invalid. Missing: it is gone. Damaged: it is not whole, or was found damaged.
    """
    inspection = inspect(folder)
    if inspection.manifest is None or inspection.problems:
        kind = Refused if inspection.refused else Missing if not folder.exists() else Damaged
        raise kind(shortened("; ".join(inspection.problems), 1000))
    if is_damaged(folder):
        raise Damaged(f"{printable(folder)} was found damaged when it was read last; restore it from a copy")
    return Candidate(folder, inspection.manifest)


def _of_word(which: Which, ordered: Sequence[Candidate]) -> Iterable[Candidate]:
    if which.word == "last":
        return ordered[-1:]
    return _every(which, ordered) if which.word == "every" else ordered


def _every(which: Which, ordered: Sequence[Candidate]) -> list[Candidate]:
    """The first checkpoint at or after each multiple; one whose tokens are not on record is none of them."""
    chosen: list[Candidate] = []
    reached = 0
    for each in ordered:
        amount = each.step if which.by == "step" else each.tokens
        if amount is not None and amount // which.every > reached:
            reached = amount // which.every
            chosen.append(each)
    return chosen


def _without_step(run: RunFolder, step: int, folders: Iterable[Path]) -> str:
    steps = sorted({step_of(folder) for folder in folders})
    if not steps:
        return f"{printable(run.path)} has no checkpoints here; train the run, or pull them: tools/sync-to-hub pull"
    told = ", ".join(map(str, steps if len(steps) < 12 else [*steps[:5], "...", *steps[-5:]]))
    return f"{printable(run.path)} has no checkpoint of step {step}; it has those of {told}"
