"""Taking a run back to an earlier checkpoint, and leaving out samples from there: planned, told, done by one rename.

A rollback is a launch that trains nothing. Its folder appears whole, with what the launches after it go by: where the
run's course goes on (`began.json`) and what is left out (`rollback.json`). Nothing is deleted.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import lexists
from pathlib import Path

from data_tools.samples.skipping import LAST_PLACE, Range, SkippedSamples, shown, united, without
from megatron_patches.artefacts.annotations import user_name
from megatron_patches.artefacts.branch import BEGAN
from megatron_patches.artefacts.descent import number_of_launch
from megatron_patches.artefacts.run_folder import CONFIG, ROLLBACK, RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.checkpoint.changed_data import last_step_before, skipped_in
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.events.tensorboard_files import rebuild_tensorboard
from megatron_patches.foreign.credentials import refuse_credentials
from megatron_patches.foreign.files import names_in
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.launch.rollback_record import RollbackRecord, newest_rollback, read_rollback
from megatron_patches.run.config import RunConfig
from megatron_patches.run.ownership import claim_launch, refuse_living_owner
from megatron_patches.run.reading import load_resolved, to_yaml
from megatron_patches.sizes import counted
from tools.commands.runs.rollback_target import Candidate, candidates, choose, require_whole

_RANGE = re.compile(r"([0-9]{1,16}):([0-9]{1,16})")
_TOLD = 5


@dataclass(frozen=True)
class Rollback:
    """What going back does to a run."""

    run: RunFolder
    config: RunConfig
    """of its newest launch"""
    target: Candidate
    abandoned: tuple[int, ...]
    """steps of the checkpoints that are left behind, newest first"""
    newest: int
    """step of the newest checkpoint that the run could go on from"""
    kept: SkippedSamples
    """what the target was saved with"""
    skipped: SkippedSamples
    """that, and what is to be left out from now on"""
    taken_back: tuple[Range, ...]
    """what an earlier rollback left out, and is read again"""
    usable: tuple[Candidate, ...]
    done_by: Path | None = None
    """the folder of the launch that has done this already, if nothing came after it"""

    def describe(self) -> list[tuple[str, str]]:
        """Labels and texts."""
        step, facts = self.target.step, self.target.manifest.facts if self.target.manifest else {}
        told = f"{self.target.folder.name}, after {counted(self.target.samples, 'sample')}"
        lines = [("goes back to", f"{told}, {self.target.told_loss}".removesuffix(", "))]
        behind = ", ".join(map(str, self.abandoned[:_TOLD])) + (" ..." if len(self.abandoned) > _TOLD else "")
        what = f"{counted(len(self.abandoned), 'checkpoint')} (step {behind}): kept, and marked abandoned"
        lines.append(("leaves behind", what if self.abandoned else "no checkpoint"))
        added = without(self.skipped.ranges, self.kept.ranges)
        number = self.skipped.count - self.kept.count
        lines.append(("leaves out", f"{counted(number, 'sample')}: {shown(added)}" if added else "no samples"))
        if self.taken_back:
            again = f"{shown(self.taken_back)}, which an earlier rollback left out"
            lines.append(("reads again", f"{again}; to leave them out still, add --skip {self.taken_back[0][0]}:"
                                         f"{self.taken_back[0][1]}" + " ..." * (len(self.taken_back) > 1)))  # fmt: skip
        left = self.config.timetable.steps - step
        rate = facts.get("next_learning_rate")
        lines.append(("goes on with", f"step {step + 1} at learning rate {rate:.6g}, {counted(left, 'step')} to go"))
        return lines

    def as_json(self) -> dict[str, object]:
        """The same for other programs."""
        return {
            "run": self.run.name,
            "checkpoint": self.target.folder.name,
            "to_step": self.target.step,
            "from_step": self.newest,
            "abandoned": list(self.abandoned),
            "skip_samples": [list(each) for each in self.skipped.ranges],
            "skipped": self.skipped.count - self.kept.count,
            "read_again": [list(each) for each in self.taken_back],
            "done_by": self.done_by.name if self.done_by else None,
        }


def plan_rollback(run: RunFolder, to: str, skip: Sequence[str], skip_steps: Sequence[str]) -> Rollback:
    """What a rollback would do; writes nothing, and reads no tensor.

    Args:
        to: a step, or `best`.
        skip: ranges of samples to leave out, `FROM:TO` in the run's order of samples, TO not among them.
        skip_steps: the same as steps, whose samples are meant.

    Raises:
        TrainyardError: it cannot be done; the message says what can.
    """
    newest_launch = _newest_launch(run)
    found = candidates(run, newest_launch)
    target = choose(run, found, to)
    config = load_resolved((newest_launch or target.folder) / CONFIG)
    kept, in_force = skipped_in(target.folder), skipped_in(newest_launch or target.folder)
    read = skipped_in(_newest_launch(run, that_trains=True) or target.folder)
    asked = [parse_range(each) for each in skip]
    asked += [_samples_of(parse_range(each, "steps"), read, config) for each in skip_steps]
    usable = tuple(each for each in found if each.usable)
    _refuse_what_was_read(asked, target, kept, usable, config)
    skipped = SkippedSamples([*kept.ranges, *asked])
    _refuse_beyond_the_end(asked, skipped, config)
    _refuse_what_a_change_moves(asked, read, skipped, config)
    abandoned = tuple(each.step for each in found if each.left_by is None and each.step > target.step)
    earlier = _newest_record(run)
    rollback = Rollback(
        run, config, target, abandoned, usable[0].step, kept, skipped,
        without(earlier.skip_samples if earlier else (), skipped.ranges), usable,
        newest_launch if newest_launch and _has_done(newest_launch, target, skipped) else None,
    )  # fmt: skip
    if not rollback.done_by and not abandoned and skipped.ranges == in_force.ranges:
        raise TrainyardError(
            f"the next launch of {run.name} goes on from {target.folder.name} and leaves out "
            f"{shown(skipped.ranges) or 'no samples'} as it is: there is nothing to roll back"
        )
    return rollback


def perform(rollback: Rollback, because: str) -> Path:
    """Do it: the folder of its launch. A second time, or where a kill came between, only what is missing is done.

    Raises:
        TrainyardError: a launch of the run is at work, the checkpoint is damaged, or no reason is given; nothing was
            written then.
        OSError: the run's folder cannot be written to.
    """
    if rollback.done_by is None:
        reason = because.strip()
        if not reason or "\n" in reason:
            raise TrainyardError("--because takes one line that says why the run goes back")
        refuse_credentials(reason, "--because")
        refuse_living_owner(rollback.run)
        require_whole(rollback.target, rollback.usable)
        folder = claim_launch(rollback.run, _files(rollback, reason))
    else:
        folder = rollback.done_by
    record = read_rollback(folder)
    assert record is not None
    _write_event(rollback.run, folder.name, record)
    return folder


def rebuild_pictures(rollback: Rollback) -> str:
    """Have TensorBoard show what is left of the run, and say what becomes of a record in Weights & Biases."""
    try:
        rebuilt = rebuild_tensorboard(rollback.run, rollback.target.step)
        told = "TensorBoard shows the steps that are left" if rebuilt else "TensorBoard's files stay as they are"
    except (TrainyardError, OSError) as error:
        told = f"TensorBoard's files stay as they are ({error}); give the same command again to have them rebuilt"
    wandb = rollback.config.logging.wandb
    if wandb is None:
        return told
    if wandb.mode == "offline":
        return f"{told}; the next launch writes the record of Weights & Biases again: upload it after that"
    return f"{told}; the next launch begins a record of its own in Weights & Biases"


def parse_range(text: str, what: str = "samples") -> Range:
    """`FROM:TO` taken apart; raises TrainyardError where it is none."""
    found = _RANGE.fullmatch(text)
    if found is None or not int(found[1]) < int(found[2]) <= LAST_PLACE:
        option, least = ("--skip-steps", 1) if what == "steps" else ("--skip", 0)
        raise TrainyardError(
            f"{option} takes FROM:TO, not {shortened(text, 40)}: FROM is the first of the {what} that are left out, "
            f"counted from {least}, and TO the first that is read again"
        )
    return int(found[1]), int(found[2])


def _samples_of(steps: Range, skipped: SkippedSamples, config: RunConfig) -> Range:
    """The samples that steps of the run have read, or would."""
    if steps[0] < 1 or steps[1] > config.timetable.steps + 1:
        raise TrainyardError(f"--skip-steps {steps[0]}:{steps[1]}: the run has steps 1 to {config.timetable.steps:,}")
    first, end = (config.timetable.after(step - 1).samples for step in steps)
    return skipped.reached(first), skipped.reached(end)


def _refuse_what_was_read(
    asked: Sequence[Range], target: Candidate, kept: SkippedSamples, usable: Sequence[Candidate], config: RunConfig
) -> None:
    reached = kept.reached(target.samples)
    read = [each for each in without(asked, kept.ranges) if each[0] < reached]
    if not read:
        return
    latest = last_step_before(read[0][0], kept, config)
    older = [each.step for each in usable if each.step <= latest]
    remedy = f"the newest such is step {max(older)}" if older else "the run has no such"
    raise Refused(
        f"{target.folder.name} was trained on sample {read[0][0]:,}, which {shown([read[0]])} would leave out: its "
        f"weights come from the first {reached:,} samples of the run's order. Leave out samples from {reached:,} on, "
        f"or go back to a checkpoint at or before step {latest:,} ({remedy})"
    )


def _refuse_beyond_the_end(asked: Sequence[Range], skipped: SkippedSamples, config: RunConfig) -> None:
    end = skipped.reached(config.timetable.end.samples)
    for first, last in asked:
        if first >= end:
            raise TrainyardError(
                f"the run ends at sample {end:,} of its order, so to leave out {first}:{last} would do nothing; name "
                "samples before that"
            )


def _refuse_what_a_change_moves(
    asked: Sequence[Range], read: SkippedSamples, skipped: SkippedSamples, config: RunConfig
) -> None:
    """Sources change after a step: what is left out before moves the samples behind, and a range there would be others
    than those that were read."""
    for change in config.data.changes:
        samples = config.timetable.after(change.from_step).samples
        before, now = read.reached(samples), skipped.reached(samples)
        behind = next((each for each in asked if each[1] > min(before, now)), None)
        if before != now and behind is not None:
            raise Refused(
                f"the sources change after step {change.from_step:,} (data.changes), which is at sample {before:,} of "
                f"the order that was read and would be at {now:,} of the new one: {shown([behind])} would leave out "
                f"other samples than were read there. Leave out samples up to {min(before, now):,} alone; what is to "
                f"be left out behind the change, by another rollback when the run has passed it"
            )


def _newest_launch(run: RunFolder, that_trains: bool = False) -> Path | None:
    names = names_in(run.launches) if run.launches.is_dir() else []
    numbered = [name for name in names if number_of_launch(name)]
    if that_trains:
        numbered = [name for name in numbered if not lexists(run.launches / name / ROLLBACK)]
    return run.launches / max(numbered, key=int) if numbered else None


def _newest_record(run: RunFolder) -> RollbackRecord | None:
    try:
        return newest_rollback(run)
    except Damaged:  # going back again is its remedy
        return None


def _has_done(launch: Path, target: Candidate, skipped: SkippedSamples) -> bool:
    try:
        record = read_rollback(launch)
    except Damaged:
        return False
    wanted = target.manifest.id if target.manifest else None
    return record is not None and (record.checkpoint, record.skip_samples) == (wanted, skipped.ranges)


def _files(rollback: Rollback, because: str) -> dict[str, bytes]:
    """What the folder of its launch holds."""
    manifest, step = rollback.target.manifest, rollback.target.step
    assert manifest is not None
    ranges = united(rollback.skipped.ranges)
    data = rollback.config.data.model_copy(update={"skip_samples": [list(each) for each in ranges]})
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = RollbackRecord(rollback.newest, step, manifest.id, ranges, because, user_name(), now)
    # its number is the folder's name, which is not known before the rename
    began = {"step": step, "checkpoint": manifest.id, "rollback": True}
    return {
        CONFIG: to_yaml(rollback.config.model_copy(update={"data": data})).encode(),
        BEGAN: (json.dumps(began) + "\n").encode(),
        ROLLBACK: record.content(),
    }


def _write_event(run: RunFolder, launch: str, record: RollbackRecord) -> None:
    """A start, at which views leave out the later steps of earlier launches; the same bytes however often."""
    facts = {
        "run": run.name,
        "step": record.to_step,
        "rollback": True,
        "from_step": record.from_step,
        "skip_samples": record.skip_samples,
        "because": record.because,
        "by": record.by,
    }
    run.events.mkdir(exist_ok=True)
    line = json.dumps({"kind": "start", "time": record.date, **facts}) + "\n"
    write_atomically(run.events / f"{launch}-rollback.jsonl", line.encode())


def headline(rollback: Rollback, launch: Path | None) -> str:
    """What was done, or would be."""
    name = printable(rollback.run.name)
    if launch is None:
        return f"{name} would be rolled back"
    if rollback.done_by is not None:
        return f"{name} was rolled back by launch {launch.name} already"
    return f"{name} is rolled back, as launch {launch.name}: start it as before, and it goes on from there"
