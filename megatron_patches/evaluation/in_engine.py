"""Tasks asked in the run's own layers: on the ranks that hold the model, or of a copy that is fine-tuned."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from megatron_patches.evaluation.asked import Asked
from megatron_patches.evaluation.encoders.fine_tuned import fine_tuned
from megatron_patches.evaluation.encoders.pseudo_perplexity import pseudo_perplexity
from megatron_patches.evaluation.losses.losses import losses
from megatron_patches.evaluation.tasks.all_tasks import Task
from megatron_patches.evaluation.tasks.encoder_tasks import FineTuningTask, MaskedTextTask
from megatron_patches.evaluation.tasks.outcome import Outcome
from megatron_patches.evaluation.tasks.task import HarnessTask, LossTask
from megatron_patches.generation.loaded_model import LoadedModel, load_model
from megatron_patches.generation.local_ranks import LocalRanks


@contextmanager
def engine(
    folder: Path, asked: Asked, tasks: Sequence[Task], hear: Callable[[str], None]
) -> Iterator[Callable[[Task], Outcome]]:
    """What answers tasks; the model is loaded once, for all tasks that ask the model as it is.

    Args:
        folder: of the checkpoint.
        tasks: that will be asked.
        hear: what is being done.
    """
    with LocalRanks(asked.tensor, asked.pipeline) as ranks:
        start_groups = cache(ranks.start_groups)
        with_harness = any(isinstance(task, HarnessTask) for task in tasks)

        @cache
        def loaded() -> LoadedModel:
            return load_model(
                [folder], hear, start_groups, asked.tensor, asked.pipeline, length=asked.length, texts=with_harness
            )

        @cache
        def for_harness() -> Any:
            from megatron_patches.evaluation.harness.model_in_engine import EngineModel

            return EngineModel(loaded(), asked.length)

        def answered(task: Task) -> Outcome:
            if isinstance(task, LossTask):
                return losses(loaded(), task)
            if isinstance(task, MaskedTextTask):
                return pseudo_perplexity(loaded(), task, asked.batch_size)
            if isinstance(task, FineTuningTask):
                return fine_tuned(folder, task, start_groups(), hear)
            from megatron_patches.evaluation.harness.ask import ask

            return next(ask(for_harness(), [task], "engine", asked.batch_size, hear))

        yield answered
