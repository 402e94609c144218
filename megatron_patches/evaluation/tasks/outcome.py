"""What a model answered to a task, before it is known as a result of a checkpoint. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from megatron_patches.artefacts.evaluations.result import DataFile, Item, Metric, Part, TaskResult, Through
from megatron_patches.evaluation.tasks.all_tasks import Task
from megatron_patches.evaluation.tasks.encoder_tasks import FineTuningTask


@dataclass(frozen=True)
class EvaluatedCheckpoint:
    """Which weights answered."""

    run: str
    step: int
    tokens: int | None
    id: str
    """of the checkpoint's manifest"""


@dataclass(frozen=True)
class Outcome:
    """The numbers of one task."""

    task: Task
    through: Through
    version: str
    definition: str
    shots: int
    examples: int
    """items that were asked; of a loss, tokens that were predicted"""
    metrics: Mapping[str, Metric]
    seconds: float
    parts: Mapping[str, Part] = field(default_factory=dict)
    items: Sequence[Item] = ()
    """none of a loss"""
    data: Sequence[DataFile] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """of the libraries that computed"""
    precision: str | None = None

    def result(self, of: EvaluatedCheckpoint) -> TaskResult:
        """The same as a result of the checkpoint."""
        return TaskResult(
            task=self.task.name,
            label=self.task.label,
            version=self.version,
            definition=self.definition,
            data=list(self.data),
            shots=self.shots,
            fine_tuning=self.task.fine_tuning.facts() if isinstance(self.task, FineTuningTask) else None,
            limit=self.task.settings.limit,
            examples=self.examples,
            length=self.task.settings.length,
            through=self.through,
            run=of.run,
            step=of.step,
            tokens=of.tokens,
            checkpoint=of.id,
            versions=dict(self.versions),
            precision=self.precision,
            seconds=self.seconds,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            metrics=dict(self.metrics),
            parts=dict(self.parts),
        )
