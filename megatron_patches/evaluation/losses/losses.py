"""The loss of a run's own objective, in the engine and without training: on its validation groups, or on a dataset."""

from collections.abc import Callable, Mapping
from time import perf_counter

import torch
from torch import Tensor

from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.errors import Refused
from megatron_patches.evaluation.losses.loss_data import LossData, LossGroup, open_loss_data
from megatron_patches.evaluation.losses.loss_sums import LossSums, part_of, pooled, predicted
from megatron_patches.evaluation.tasks.outcome import Outcome
from megatron_patches.evaluation.tasks.task import LossTask
from megatron_patches.generation.loaded_model import LoadedModel
from megatron_patches.launch.preparation import PreparationProgress
from megatron_patches.objectives.batches import first_micro_batches
from megatron_patches.objectives.build import build_objective
from megatron_patches.run.reading import load_resolved

SampleSums = Callable[[MicroBatch], Tensor | None]
"""`ModelOnRank.sample_sums`: of each sample of a micro-batch the sum over its targets of weight x loss, and that of the
weights; None where this rank does not know them"""

VERSION = "1"
"""of what is computed; another one is another task"""


def losses(loaded: LoadedModel, task: LossTask) -> Outcome:
    """The loss of a task, in nats per target, and its perplexity; over several groups the mean over all their targets,
    with that of each group as a part.

    On the samples and at the length that the run validates with it is the loss that the run recorded at this step.

    Raises:
        Refused: there is nothing to compute it on, or the model cannot read so many tokens at once.
        TrainyardError: data is missing, damaged, or another than the checkpoint was trained with.
        Damaged: the loss is not finite.
    """
    started = perf_counter()
    trained = load_resolved(loaded.checkpoint / CONFIG)  # that of the model has another length, where one was asked for
    data = open_loss_data(trained, loaded.checkpoint, loaded.manifest, task, PreparationProgress())
    if data.lengths.of("tokens") > loaded.window:
        raise Refused(
            f"{task.label} reads {data.lengths.of('tokens'):,} tokens at once, and the model was loaded for "
            f"{loaded.window:,}; load it for the longer ones"
        )
    sums = {group.name: sum_over(group, data, loaded.ranks.sample_sums) for group in data.groups}
    return outcome_of(task, data, sums, perf_counter() - started)


def sum_over(
    group: LossGroup,
    data: LossData,
    sample_sums: SampleSums,
    rank: tuple[int, int] = (0, 1),
    hear: Callable[[], None] = lambda: None,
) -> LossSums:
    """The sums of one data-parallel rank, (its number, of how many), over its part of a group's samples.

    Args:
        hear: called before each micro-batch, as often on every rank.
    """
    config = data.config
    made = build_objective(config.objective, config.training.seed, data.end_of_document, data.special)
    objective = made.for_validation
    size, vocabulary = config.training.micro_batch_size, config.model.vocabulary
    found = torch.zeros(5, dtype=torch.float64)
    for batch in first_micro_batches(group.samples, objective, group.count, size, vocabulary, rank):
        hear()
        sums = sample_sums(batch)
        if sums is None:
            continue
        loss, targets = sums.cpu().unbind(1)
        found += torch.stack(
            [loss.sum(), targets.sum(), loss.square().sum(), (loss * targets).sum(), targets.square().sum()]
        )
    return LossSums.of(group.count, found.tolist())


def outcome_of(task: LossTask, data: LossData, sums: Mapping[str, LossSums], seconds: float) -> Outcome:
    """What the sums of all groups say.

    Raises:
        Refused: a group has no target.
        Damaged: a loss is not finite.
    """
    for name, each in sums.items():
        each.require_finite(name)
    return Outcome(
        task=task,
        through="engine",
        version=VERSION,
        definition=data.definition(),
        shots=0,
        examples=predicted(sum(each.targets for each in sums.values())),
        metrics=pooled(list(sums.values())),
        seconds=seconds,
        parts={name: part_of(each) for name, each in sums.items()} if data.has_parts else {},
        data=data.files(),
        versions={"torch": torch.__version__},
        precision=data.config.training.precision,
    )
