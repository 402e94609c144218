"""One run, looked at from all sides without starting it."""

from dataclasses import asdict, dataclass
from typing import Any

from megatron_patches.checkpoint.recorded_changes import as_fact, changes_of
from megatron_patches.checkpoint.resume_check import newest_whole, saved_steps
from megatron_patches.checkpoint.size import checkpoint_size, describe_checkpoints
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout, require_whole_batches
from megatron_patches.run.parameter_count import ParameterCount, count_parameters
from megatron_patches.run.progress import ChangeRecord
from megatron_patches.run.run_directory import run_directory
from megatron_patches.run.summary import (
    describe_layout,
    describe_run,
    draw_rates,
    learning_rate_plan,
    rate_table,
    tokens_per_step,
    training_samples,
)
from tools.commands.runs.compare import as_text
from tools.run_views.recorded_data import RecordedData, read_recorded_data


@dataclass(frozen=True)
class RunView:
    """What `tools/runs show` says of a run."""

    config: RunConfig
    parameters: ParameterCount
    layout: Layout
    learning_rates: list[tuple[int, float]]
    """steps and the learning rate of each"""
    resumed_at: int | None
    """step of the checkpoint that the next launch takes; None where the run has none"""
    changes: list[ChangeRecord]
    """what was set otherwise on the way to that checkpoint"""
    data: RecordedData | None = None
    """what the newest launch read; None where none recorded it"""
    problems: tuple[str, ...] = ()
    """what of the record could not be read"""

    def headlines(self) -> list[tuple[str, str]]:
        """Labels and texts of the lines above the tables."""
        return [
            *describe_run(self.config),
            *describe_layout(self.config, self.layout),
            ("checkpoints", describe_checkpoints(self.config, self.layout)),
            *(self.data.describe() if self.data else ()),
        ]

    def parts(self) -> list[tuple[str, int, str]]:
        """Parts of the model that there are, their parameters, and their share of all."""
        total = self.parameters.total
        parts = {part.replace("_", " "): number for part, number in self.parameters.by_part.items() if number}
        return [(part, number, percentage(number, total)) for part, number in {**parts, "total": total}.items()]

    def stages(self) -> list[tuple[str, str, int]]:
        """Number, layers and parameters of each pipeline stage, where there are several."""
        stages = self.config.stages if self.layout.pipeline > 1 else []
        return [(str(number), stage.names, stage.parameters) for number, stage in enumerate(stages)]

    def rates(self) -> list[tuple[str, str, str]]:
        """Steps, the learning rate of each, and what happens there."""
        return [(f"{step:,}", f"{rate:.6g}", note) for step, rate, note in rate_table(self.config, self.resumed_at)]

    def changed(self) -> list[tuple[str, str, str, str]]:
        """Steps, keys, and their values before and from there on."""
        return [(f"{each.step:,}", each.key, _told(each.before), _told(each.now)) for each in self.changes]

    def plot(self, width: int) -> str:
        """The learning rate over steps, in lines of at most so many characters."""
        return "\n".join(draw_rates(self.config, self.resumed_at, min(width, 80)))

    def as_json(self) -> dict[str, Any]:
        """The same for other programs; numbers are exact."""
        config, total = self.config, self.parameters.total
        counts = {**self.parameters.by_part, "total": total}
        return {
            "config": config.model_dump(),
            "model": config.architecture.describe(config.model),
            "parameters": counts,
            "parameter_shares": {part: number / total for part, number in counts.items()},
            "layout": {
                **asdict(self.layout),
                "world_size": self.layout.world_size,
                "micro_batches": self.layout.micro_batches(config.training),
            },
            "stages": [
                {"layers": list(stage.layers), "blocks": stage.blocks, "parameters": stage.parameters}
                for stage in config.stages
            ],
            "global_batches": [
                {"from_step": stretch.steps_before + 1, "samples": stretch.batch_size}
                for stretch in config.timetable.stretches
                if stretch.steps_before < config.timetable.steps
            ],
            "steps": config.timetable.steps,
            "samples": training_samples(config),
            "tokens": config.timetable.end.tokens,
            "tokens_per_step": tokens_per_step(config),
            "checkpoint_bytes": asdict(checkpoint_size(config)),
            "ends": config.timetable.ends,
            "resumed_at": self.resumed_at,
            "changes": as_fact(self.changes),
            "data_read": {"launch": self.data.launch, **self.data.facts} if self.data else None,
            "learning_rates": [{"step": step, "learning_rate": rate} for step, rate in self.learning_rates],
        }


def view_run(config: RunConfig, processes: int | None) -> RunView:
    """Derives what a run will be on so many processes; None takes as many as one copy of the model needs.

    Raises:
        TrainyardError: the layout does not fit the processes, from the first batch to the last.
    """
    parallel = config.parallel
    layout = plan_layout(config, processes or parallel.tensor * parallel.pipeline)
    require_whole_batches(config, layout, consumed_samples=0)
    directory, problems = run_directory(config), list[str]()
    taken = newest_whole(saved_steps(directory.checkpoints, config.data.allow_invalid))
    read = read_recorded_data(directory.events, problems)
    return RunView(
        config=config,
        parameters=count_parameters(config.model, config.lengths),
        layout=layout,
        learning_rates=learning_rate_plan(config),
        resumed_at=taken.step if taken else None,
        changes=changes_of(taken.manifest.facts) if taken else [],
        data=read,
        problems=tuple(problems),
    )


def _told(value: Any) -> str:
    """A value as people write it; lines of text, as changes of data are recorded, after one another."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "; ".join(value) or "none"
    return as_text(value)


def percentage(number: int, total: int) -> str:
    """A share with one decimal; what is there but would round to none says so."""
    share = f"{number / total:.1%}"
    return "<0.1%" if number and share == "0.0%" else share
