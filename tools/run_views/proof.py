"""Whether a run was trained on the samples that its files hold, in their order: recomputed, and compared with records.

Every step's hash is computed from the files by the configuration of the launch that trained it, and compared with what
that launch recorded; a checkpoint's running hash with the sum over all samples before it. Training is not repeated:
what is compared is what readers delivered (`data_tools.samples.delivered`).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.opened_sources import OpenedSource
from data_tools.opened_text import OpenedText
from data_tools.samples.delivered import delivered_of, hash_text
from data_tools.samples.difference import ChangedToken, single_changes
from megatron_patches.artefacts.folders import inspect, list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import STEPS
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import shortened
from tools.run_views.read_order import ReadOrder, ReadOrders
from tools.run_views.recorded_steps import LaunchSteps, RecordedStep, config_of, gaps, recorded_launches
from tools.run_views.running_hashes import SAMPLES_AT_ONCE, RunningHashes
from tools.run_views.stream_places import stream_places

_SECONDS = 10
_TOLD_SOURCES = 8


@dataclass(frozen=True)
class Difference:
    """The first step of a launch whose samples are others than those that the files hold now."""

    step: int
    recorded: int
    found: int
    sources: Mapping[str, int]
    """samples of the step by their source, those with most first"""
    explanations: tuple[str, ...]
    """single changes that would explain it; usually none or one"""
    datasets: tuple[str, ...]
    """paths of the datasets that the step's samples lie in"""


@dataclass(frozen=True)
class LaunchProof:
    """What was found of one launch's steps."""

    launch: str
    steps: tuple[int, int] | None
    """first and last of those that were compared; None where none could be"""
    compared: int
    samples: int
    unrecorded: tuple[int, int, int] | None
    """first, last and number of steps without a hash that can be compared"""
    version: int | None
    """of the launch's hashes"""
    differing: tuple[int, ...]
    first: Difference | None
    problem: str | None = None
    """why the launch cannot be looked at"""


@dataclass(frozen=True)
class CheckpointProof:
    """What was found of one checkpoint's running hash."""

    name: str
    launch: str
    samples: int
    recorded: int | None
    """None where the checkpoint has no running hash"""
    found: int | None
    """None where it was not computed"""
    why_not: str | None = None
    """why it was not, where there is one to compare with"""

    @property
    def equal(self) -> bool | None:
        """None where there is nothing to compare."""
        return None if self.recorded is None or self.found is None else self.recorded == self.found


@dataclass(frozen=True)
class Proof:
    """All that was found."""

    run: str
    launches: list[LaunchProof]
    checkpoints: list[CheckpointProof]
    strangers: list[str]
    """datasets that are read now and that no checkpoint of the run was trained on"""
    gaps: list[tuple[int, int]]
    """first and last of steps that are part of the run and on no record"""

    @property
    def differs(self) -> bool:
        """Whether anything is another than the files say."""
        return any(each.differing for each in self.launches) or any(each.equal is False for each in self.checkpoints)

    @property
    def incomplete(self) -> bool:
        """Whether nothing was compared, or a launch could not be looked at."""
        return any(each.problem for each in self.launches) or not any(each.compared for each in self.launches)

    def as_json(self) -> dict[str, Any]:
        """For other programs; hashes are hexadecimal texts."""
        return {
            "run": self.run,
            "equal": not self.differs and not self.incomplete,
            "launches": [_launch_json(each) for each in self.launches],
            "checkpoints": [
                {
                    "checkpoint": each.name, "launch": each.launch, "samples": each.samples,
                    "recorded": _hex(each.recorded), "found": _hex(each.found), "equal": each.equal,
                    "not_computed": each.why_not,
                }
                for each in self.checkpoints
            ],
            "datasets_of_no_checkpoint": self.strangers,
            "without_record": [{"first": first, "last": last} for first, last in self.gaps],
        }  # fmt: skip


def prove(run: RunFolder, within: tuple[int, int] | None, say: Callable[[str], None]) -> Proof:
    """Compare every step that was recorded, and every checkpoint that there is, with the files.

    Args:
        within: first step and the one after the last; None means all. Checkpoints are looked at where it begins at 1.
        say: takes a sentence every few seconds.

    Raises:
        TrainyardError: events or data cannot be read.
    """
    known_launches = recorded_launches(run)
    recorded = [each for each in known_launches if len(each.steps)]
    reached = {each.launch: int((each.firsts + each.sizes).max()) for each in recorded}
    if within is not None:
        recorded = [_cut(each, *within) for each in recorded]
        recorded = [each for each in recorded if len(each.steps)]
    progress = _Progress(sum(int(each.sizes[each.hashed].sum()) for each in recorded), say)
    orders, known, launches = ReadOrders(stream_places(run)), RunningHashes(), []
    opened: dict[str, ReadOrder] = {}
    for steps in recorded:
        try:
            order = orders.open(config_of(run, steps))
        except TrainyardError as error:
            launches.append(_unopened(steps, str(error)))
            continue
        opened[steps.launch] = order
        launches.append(_compare(steps, order, known, progress))
    whole = within is None or within[0] == 1
    last = None if within is None else within[1] - 1
    checkpoints = list(_checkpoints(run, opened, known, reached, last)) if whole else []
    first, end = within or (1, STEPS)
    missing = [(max(first, begin), min(end - 1, last)) for begin, last in gaps(known_launches)]
    missing = [each for each in missing if each[0] <= each[1]]
    return Proof(run.name, launches, checkpoints, _strangers(run, opened), missing)


def _compare(steps: LaunchSteps, order: ReadOrder, known: RunningHashes, progress: "_Progress") -> LaunchProof:
    rows = np.flatnonzero(steps.hashed)
    firsts, sizes = steps.firsts[rows], steps.sizes[rows]
    found = np.zeros(len(rows), dtype=np.uint64)
    for piece in _pieces(sizes):
        found[piece] = order.sums(firsts[piece].tolist(), sizes[piece].tolist())
        progress.done(int(sizes[piece].sum()), f"step {steps.steps[rows[piece.stop - 1]]:,} of launch {steps.launch}")
    known.add(order, firsts, sizes, found)
    [differing] = np.nonzero(found != steps.hashes[rows])
    # a file of events can be written to by hand: its steps may stand in any order, and twice
    differing = differing[np.argsort(steps.steps[rows[differing]], kind="stable")]
    first = None
    if len(differing):
        first = _describe(steps.row(int(rows[differing[0]])), int(found[differing[0]]), order)
    compared = steps.steps[rows]
    without = np.unique(steps.steps[~steps.hashed])
    return LaunchProof(
        launch=steps.launch,
        steps=(int(compared.min()), int(compared.max())) if len(rows) else None,
        compared=len(rows),
        samples=int(sizes.sum()),
        unrecorded=(int(without[0]), int(without[-1]), len(without)) if len(without) else None,
        version=steps.version,
        differing=tuple(compared[differing].tolist()),
        first=first,
    )


def _describe(step: RecordedStep, found: int, order: ReadOrder) -> Difference:
    """What can be said of a step whose recorded hash is another."""
    places, located, samples = order.read(step.first, step.size)
    names = [order.data.sources[each].name for each in located.source.tolist()]
    assert step.hash is not None
    told = []
    keys, vocabulary = order.samples.keys[located.source], order.data.tokenizer_vocabulary
    for change in single_changes(places, keys, located.number, samples, step.hash, vocabulary):
        if isinstance(change, ChangedToken):
            at = change.sample
            told.append(
                f"token {change.position:,} of sample {located.number[at]:,} of source {names[at]} (place "
                f"{places[at]:,}) was {change.was} and is {change.now} now"
            )
        else:
            told.append(f"the samples at places {places[change.first]:,} and {places[change.second]:,} were swapped")
    shards = {
        _lies_in(order.data.sources[source], number): None
        for source, number in zip(located.source.tolist(), located.number.tolist(), strict=True)
    }
    return Difference(
        step.step, step.hash, found, dict(Counter(names).most_common(_TOLD_SOURCES)), tuple(told), tuple(shards)
    )


def _lies_in(source: OpenedSource | OpenedText, number: int) -> str:
    """Path of what a sample is read from."""
    return source.text.path if isinstance(source, OpenedText) else str(source.find(number)[0].prefix)


def _checkpoints(
    run: RunFolder,
    opened: Mapping[str, ReadOrder],
    known: RunningHashes,
    reached: Mapping[str, int],
    last: int | None,
) -> Iterator[CheckpointProof]:
    """Those that there are, by step.

    Args:
        reached: samples that each launch came to; a checkpoint that says more of itself is not computed.
    """
    folders = [*list_checkpoints(run.checkpoints), *list_checkpoints(run.checkpoints, "weights")]
    for folder in sorted(folders, key=lambda each: (each.name.rpartition("-")[2], each.name)):
        facts = inspect(folder, True).facts or {}
        launch, samples, step = facts.get("launch"), whole_of(facts.get("samples")), whole_of(facts.get("step"))
        if not isinstance(launch, str) or samples is None or step is None:
            continue
        if last is not None and step > last:
            continue
        delivered = delivered_of(facts)
        order = opened.get(launch)
        found, why_not = None, None
        if delivered is None:
            pass
        elif order is None:
            why_not = f"launch {shortened(launch, 20)} cannot be looked at, or has no record"
        elif samples > reached[launch]:
            why_not = f"launch {launch} has no record of so many samples"
        else:
            found = known.at(order, samples)
        yield CheckpointProof(folder.name, launch, samples, delivered.hash if delivered else None, found, why_not)


def _strangers(run: RunFolder, opened: Mapping[str, ReadOrder]) -> list[str]:
    """Datasets that launches with a checkpoint would read now under another id than they did."""
    found: dict[str, None] = {}
    for folder in list_checkpoints(run.checkpoints):
        manifest = inspect(folder, True).manifest
        order = opened.get(str(manifest.facts.get("launch"))) if manifest is not None else None
        if manifest is None or order is None:
            continue
        for source in order.data.datasets:
            for shard in source.shards:
                if shard.id not in manifest.parents:
                    text = f"source {source.name}: {shard.prefix} is dataset {shard.id[:12]}, on which {folder.name}"
                    found[f"{text} was not trained"] = None
    return list(found)


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, samples: int, say: Callable[[str], None]) -> None:
        self._samples, self._say = samples, say
        self._done = 0
        self._began = self._said = time.monotonic()

    def done(self, samples: int, where: str) -> None:
        """So many more were read."""
        self._done += samples
        now = time.monotonic()
        if now - self._said >= _SECONDS and self._done < self._samples:
            self._said = now
            left = (now - self._began) / self._done * (self._samples - self._done)
            self._say(f"{where}: {self._done / self._samples:.0%} of the samples, about {left:,.0f} s to go")


def _pieces(sizes: NDArray[np.int64]) -> Iterable[slice]:
    """Rows of steps that are read together, of about `SAMPLES_AT_ONCE` samples, one step at least."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + SAMPLES_AT_ONCE, "right")))
        yield slice(first, last)
        first = last


def _cut(steps: LaunchSteps, first: int, end: int) -> LaunchSteps:
    kept = (steps.steps >= first) & (steps.steps < end)
    return LaunchSteps(
        steps.launch, steps.begins, steps.layout, steps.version, steps.steps[kept], steps.firsts[kept],
        steps.sizes[kept], steps.hashes[kept], steps.hashed[kept],
    )  # fmt: skip


def _unopened(steps: LaunchSteps, problem: str) -> LaunchProof:
    return LaunchProof(steps.launch, None, 0, 0, None, steps.version, (), None, problem)


def _launch_json(proof: LaunchProof) -> dict[str, Any]:
    first = proof.first
    unrecorded = proof.unrecorded
    return {
        "launch": proof.launch,
        "first_step": proof.steps[0] if proof.steps else None,
        "last_step": proof.steps[1] if proof.steps else None,
        "compared": proof.compared,
        "samples": proof.samples,
        "without_hash": unrecorded and {"first": unrecorded[0], "last": unrecorded[1], "steps": unrecorded[2]},
        "differing": list(proof.differing),
        "first_difference": first and {
            "step": first.step,
            "recorded": _hex(first.recorded),
            "found": _hex(first.found),
            "sources": dict(first.sources),
            "datasets": list(first.datasets),
            "explanations": list(first.explanations),
        },
        "problem": proof.problem,
    }  # fmt: skip


def _hex(value: int | None) -> str | None:
    return None if value is None else hash_text(value)
