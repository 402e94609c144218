"""One run, looked at from all sides without starting it."""

from dataclasses import asdict, dataclass
from typing import Any

from megatron_patches.config import RunConfig
from megatron_patches.configuration.fields import known_fields
from megatron_patches.layout import Layout, plan_layout
from megatron_patches.parameter_count import ParameterCount, count_parameters
from megatron_patches.run_summary import (
    describe_layout,
    describe_run,
    learning_rate_plan,
    tokens_per_step,
    training_samples,
)


@dataclass(frozen=True)
class RunView:
    """What `tools/runs show` says of a run."""

    config: RunConfig
    parameters: ParameterCount
    layout: Layout
    learning_rates: list[tuple[int, float]]
    """steps and the learning rate of each"""

    def headlines(self) -> list[tuple[str, str]]:
        """Labels and texts of the lines above the tables."""
        return [*describe_run(self.config), *describe_layout(self.config, self.layout)]

    def as_json(self) -> dict[str, Any]:
        """The same for other programs; numbers are exact."""
        step = tokens_per_step(self.config)
        return {
            "config": self.config.model_dump(),
            "parameters": {**asdict(self.parameters), "total": self.parameters.total},
            "layout": {
                **asdict(self.layout),
                "world_size": self.layout.world_size,
                "micro_batches": self.layout.micro_batches(self.config.training),
            },
            "samples": training_samples(self.config),
            "tokens": self.config.training.steps * step,
            "tokens_per_step": step,
            "learning_rates": [{"step": step, "learning_rate": rate} for step, rate in self.learning_rates],
        }


def view_run(config: RunConfig, processes: int | None) -> RunView:
    """Derives what a run will be on so many processes; None takes as many as one copy of the model needs.

    Raises:
        TrainyardError: the layout does not fit the processes.
    """
    parallel = config.parallel
    return RunView(
        config=config,
        parameters=count_parameters(config.model, config.data.sequence_length),
        layout=plan_layout(config, processes or parallel.tensor * parallel.pipeline),
        learning_rates=learning_rate_plan(config),
    )


def meanings() -> dict[str, str]:
    """What each dotted key means and in which unit."""
    return {key: field.description or "" for key, field in known_fields(RunConfig)}
