"""What a launch says before its first step of where it goes on: what it takes and why, what else lies there, the
learning rate on both sides of the boundary, what is left. Torch-free."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron_patches.checkpoint.changed_settings import describe_changes
from megatron_patches.checkpoint.other_work import OtherWork, other_work, told_together
from megatron_patches.checkpoint.resume_check import SavedStep, rate_jump
from megatron_patches.launch.facts import LaunchFacts
from megatron_patches.run.config import RunConfig
from megatron_patches.run.summary import draw_rates, rate_table
from megatron_patches.sizes import counted

_TOLD = 5


@dataclass(frozen=True)
class Continuation:
    """Where a launch goes on."""

    config: RunConfig
    taken: SavedStep
    older: int
    """checkpoints of earlier steps that lie beside it"""
    others: Sequence[OtherWork]
    """what is of a later step and is not taken"""
    epoch: int | None
    """samples of an epoch; None where several sources have each their own"""

    def describe(self) -> Iterator[tuple[str, str]]:
        """Labels and texts."""
        config, step = self.config, self.taken.step
        end = config.timetable.end
        facts = self.taken.manifest.facts
        why = "the newest whole checkpoint" if not self.others else "the newest that can be resumed from"
        saved = f", saved by launch {facts['launch']}" if isinstance(facts.get("launch"), str) else ""
        beside = f"; {counted(self.older, 'older one')} beside it" if self.older else ""
        yield "resumes from", f"{self.taken.folder.name}, {why}{saved}, step {step:,} of {end.step:,}{beside}"
        lines = told_together(self.others)
        for line in lines[:_TOLD]:
            yield "not taken", line
        if len(lines) > _TOLD:
            yield "not taken", f"{counted(len(lines) - _TOLD, 'other')}"
        if changed := describe_changes(self.taken.folder, config):
            yield "settings", changed
        yield "boundary", describe_boundary(self.taken, config)
        samples = end.samples - self.taken.samples
        epochs = f", {samples / self.epoch:.4g} epochs" if self.epoch else ""
        yield "remaining", f"{counted(end.step - step, 'step')}, {counted(samples, 'sample')}{epochs}"


def find_continuation(facts: LaunchFacts, epoch: int | None) -> Continuation | None:
    """Where a launch that has no problems goes on; None where it begins at step 0."""
    taken = facts.taken
    if taken is None:
        return None
    others = other_work(facts.directory, facts.config.data.allow_invalid, taken.step)
    older = sum(each.step < taken.step for each in facts.saved)
    return Continuation(facts.config, taken, older, others, epoch)


def describe_boundary(taken: SavedStep, config: RunConfig) -> str:
    """The learning rate before and after a resume."""
    step, before = taken.step, taken.manifest.facts["learning_rate"]
    after, end = config.learning_rate(step + 1), config.timetable.steps
    jump = rate_jump(taken, config)
    jumps = f" (a jump that checkpoint.allow_rate_jump_at names: {jump[1]:.6g} at step {step:,} now)" if jump else ""
    last = f", {config.learning_rate(end):.6g} in the last one, {end:,}" if end > step + 1 else ""
    return f"learning rate {before:.6g} in step {step:,}, {after:.6g} in step {step + 1:,}{jumps}{last}"


def course(config: RunConfig, resumed_at: int | None, width: int = 80) -> str:
    """The learning rate over the whole run, as a table and as a plot of at most so many characters a line."""
    rows = [(f"{step:,}", f"{rate:.6g}", note) for step, rate, note in rate_table(config, resumed_at)]
    wide = max(len(step) for step, _, _ in rows)
    table = [f"{step:>{max(wide, 4)}}  {rate:<13}  {note}".rstrip() for step, rate, note in rows]
    head = f"{'step':>{max(wide, 4)}}  learning rate"
    return "\n".join([head, *table, "", *draw_rates(config, resumed_at, min(width, 80))])
