"""What one rank of a launch with `--eval-only` does: weights are loaded and validated, checkpoint after checkpoint.

Every data-parallel rank reads its part of each group's samples. Within a copy of the model nothing is sent back from
the last pipeline stage, so that the first one goes on with the next micro-batch meanwhile.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist

from megatron_patches.artefacts.evaluations.shelf import shelve
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.evaluation.eval_only.asked import AskedCheckpoint, asked_of, chosen_checkpoints, layout_of
from megatron_patches.evaluation.eval_only.table import result_lines
from megatron_patches.evaluation.losses.loss_data import LossData, LossGroup, open_loss_data
from megatron_patches.evaluation.losses.loss_sums import LossSums
from megatron_patches.evaluation.losses.losses import outcome_of, sum_over
from megatron_patches.foreign.printable import printable
from megatron_patches.generation.loading import LoadOrder, load_on_rank
from megatron_patches.generation.model_on_rank import ModelOnRank
from megatron_patches.parallel.kernels import kernels_of
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups, stop_process_groups
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import Launch

_PER_STAGE = 4
"""micro-batches for each pipeline stage between two votes, which make the stages wait for each other"""
_Made = TypeVar("_Made")


class StopRequest:
    """USR1 on any rank: all of them stop at the same micro-batch."""

    def __init__(self) -> None:
        self._received = 0
        self._heard = 0
        self._group: dist.ProcessGroup | None = None
        self._every = 1
        signal.signal(signal.SIGUSR1, self._remember)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # node.py blocks it until someone listens

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = 1

    def join(self, groups: ProcessGroups) -> None:
        """From now on `hear` asks the other ranks."""
        self._group, self._every = groups.control_group, _PER_STAGE * groups.layout.pipeline

    def hear(self) -> None:
        """On all ranks, equally often; raises `StopAsked` on all of them where one was asked to stop."""
        self._heard += 1
        if (self._heard - 1) % self._every == 0:
            vote = torch.tensor(self._received)
            dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=self._group)
            if vote.item():
                raise StopAsked


class StopAsked(Exception):
    """The launch was asked to stop."""


def validate(launch: Launch) -> None:
    """Validates the checkpoints of a launch's folder on this rank and all others, and shelves what is found.

    Raises:
        TrainyardError: on the first rank, where a checkpoint could not be validated; the others were.
    """
    stop = StopRequest()
    launched, folders = load_resolved(launch.config), chosen_checkpoints(launch.directory)
    training = asked_of(folders[0], launched).config.training
    layout = layout_of(launched, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[training.precision], kernels=kernels_of(training))
    stop.join(groups)
    problems = []
    try:
        for folder in folders:
            try:
                _validate_one(folder, launched, launch, groups, stop)
            except TrainyardError as error:  # the same on all ranks
                problems.append(str(error))
    except StopAsked:
        if groups.rank == 0:
            print("asked to stop: what was validated is kept; start it again for the rest", flush=True)
            launch.stopped.touch()
    dist.barrier(group=groups.control_group)
    stop_process_groups()
    if groups.rank == 0:
        refuse(problems)


def _validate_one(folder: Path, launched: RunConfig, launch: Launch, groups: ProcessGroups, stop: StopRequest) -> None:
    started = perf_counter()
    asked, data, model = together(groups, lambda: _loaded(folder, launched, groups))
    sums = {group.name: _summed(group, data, model, groups, stop) for group in data.groups}
    outcome = outcome_of(asked.task, data, sums, perf_counter() - started)
    if groups.rank == 0:
        result = outcome.result(asked.evaluated)
        shelf = shelve(launch.run, result, (), asked.parents)
        print("\n".join([*result_lines(result), f"in {printable(shelf / f'{result.label}.json')}", ""]), flush=True)


def _loaded(folder: Path, launched: RunConfig, groups: ProcessGroups) -> tuple[AskedCheckpoint, LossData, ModelOnRank]:
    asked = asked_of(folder, launched)
    data = open_loss_data(asked.config, asked.folder, asked.manifest, asked.task, None)
    order = LoadOrder(folder, asked.config.model.vocabulary, asked.task.settings.length)
    return asked, data, load_on_rank(order, groups)


def together(groups: ProcessGroups, make: Callable[[], _Made]) -> _Made:
    """What each rank makes for itself; where one of them finds a problem, all of them raise it."""
    found: list[TrainyardError | None] = [None] * groups.layout.world_size
    made, problem = None, None
    try:
        made = make()
    except TrainyardError as error:
        problem = error
    dist.all_gather_object(found, problem, group=groups.control_group)
    if told := next((each for each in found if each is not None), None):
        raise told
    assert made is not None
    return made


def _summed(group: LossGroup, data: LossData, model: ModelOnRank, groups: ProcessGroups, stop: StopRequest) -> LossSums:
    """Over all samples of a group; the same on every rank."""
    rank = (groups.coordinates.data, groups.layout.data)
    here = sum_over(group, data, model.sample_sums_here, rank, stop.hear)
    counts = groups.last_stage and groups.coordinates.tensor == 0
    sums = torch.tensor(here.sums if counts else [0.0] * len(here.sums), dtype=torch.float64)
    dist.all_reduce(sums, group=groups.control_group)
    return LossSums.of(group.count, sums.tolist())
