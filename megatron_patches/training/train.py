"""What one rank of a launch does: data, engine and callbacks are built, the run is resumed and trained."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch.distributed as dist

from data_tools.data_record import record_of
from data_tools.opened_text import OpenedText
from data_tools.run_data import RunData
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.skipping import SkippedSamples
from data_tools.streams.cursor import Cursor
from data_tools.streams.position import StreamPosition
from megatron_patches.artefacts.folders import inspect, step_of
from megatron_patches.artefacts.unfinished import remove_leftovers
from megatron_patches.callbacks.checkpointing import Checkpointing, describe_resume, describe_start
from megatron_patches.callbacks.event_recorder import EventRecorder
from megatron_patches.callbacks.save_request import SaveRequest
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.changed_data import data_behind_problems
from megatron_patches.checkpoint.changed_settings import describe_changes, recorded_changes, second_rate_problems
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.checkpoint.initial_weights import load_initial_weights
from megatron_patches.checkpoint.other_work import from_scratch_problems, other_work, told_together
from megatron_patches.checkpoint.recorded_changes import changes_of, continued_changes
from megatron_patches.checkpoint.resume import load_newest_whole
from megatron_patches.checkpoint.resume_check import SavedStep, learning_rate_problems, state_problems
from megatron_patches.checkpoint.saver import Saver
from megatron_patches.checkpoint.starting_point import TOKENIZER_VOCABULARY, InitialWeights, read_initial_weights
from megatron_patches.checkpoint.tokenizer_files.travelling import keep_tokenizer, read_tokenizer
from megatron_patches.engine.build import build_engine
from megatron_patches.errors import Refused, TrainingFailed, TrainyardError, refuse
from megatron_patches.events.writing import EventWriter
from megatron_patches.foreign.printable import printable
from megatron_patches.objectives.batches import TrainingBatches
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.dealt_samples import DealtSamples
from megatron_patches.parallel.kernels import kernels_of
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups, stop_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.parallel.votes import StepVotes
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout, require_whole_batches
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.progress import ChangeRecord, DataRecord, Message, Outcome
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import Launch, text_preparation
from megatron_patches.run.summary import training_samples
from megatron_patches.training.build_callbacks import build_callbacks
from megatron_patches.training.stream_positions import StreamPositions
from megatron_patches.training.trainer import Trainer


def train(launch: Launch) -> Outcome:
    """Run one launch on this rank, from where the run's newest whole checkpoint ended."""
    config = load_resolved(launch.config)
    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[config.training.precision], kernels=kernels_of(config.training))
    with ExitStack() as closing:  # closes everything, also where closing one thing fails
        data = open_data(config)
        trainer, checkpointing = build_trainer(config, launch, groups, data)
        closing.callback(trainer.batches.close)
        for callback in trainer.callbacks:
            closing.callback(callback.close)
        try:
            check_size(trainer)
            resume(trainer, checkpointing)
            require_whole_batches(config, layout, trainer.progress.samples)  # it may have fallen back
            record_data(trainer, data)
            checkpointing.begin(trainer)
            outcome = trainer.fit()
        except Exception as error:
            record_failure(trainer, error)
            raise
        if outcome is Outcome.STOPPED and trainer.is_first_rank:
            launch.stopped.touch()
    dist.barrier(group=groups.control_group)
    stop_process_groups()
    return outcome


def open_data(config: RunConfig) -> RunData:
    """The data of a run; raises TrainyardError where it is not what it was when the launch was planned."""
    return RunData(config.data, CHECKOUT, config.lengths, config.place_after, None, text_preparation(config))


def build_trainer(
    config: RunConfig, launch: Launch, groups: ProcessGroups, data: RunData | None = None
) -> tuple[Trainer, Checkpointing]:
    """Engine and callbacks of this rank, on data that is opened already or, by None, opened here."""
    assert groups.kernels == kernels_of(config.training), "the groups were made for a run with other kernels"
    data = data or open_data(config)
    randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
    identity = run_identity(config, data.identity_for(config.objective.token_roles), data.tokenizer_id)
    events = EventWriter(launch.run.events, launch.id, "trainer") if groups.rank == 0 else None
    dealt = dealt_samples(config, data, groups)
    streams = dealt and StreamPositions(dealt, SkippedSamples(config.data.skip_samples))
    if streams and groups.rank == 0:
        streams.read_ahead(launch.run.checkpoints, config.training.global_batch_size)
    engine = build_engine(config, groups, randomness)
    votes = StepVotes(groups.control_group)
    checkpointing = Checkpointing(
        Saver(launch.run.checkpoints, config.checkpoint, groups, engine.state()),
        SaveRequest(launch.run.save_requested, groups.rank == 0, votes.ask()),
        votes.ask(),
        identity,
        (*data.dataset_ids, data.tokenizer_id),
    )
    checkpointing.further_facts[TOKENIZER_VOCABULARY] = data.tokenizer_vocabulary
    if groups.rank == 0:
        tokenizer = read_tokenizer(CHECKOUT / config.data.tokenizer, data.tokenizer_id)
        checkpointing.tokenizer = keep_tokenizer(tokenizer, launch.run)
    callbacks = build_callbacks(config, launch, groups, data, votes, checkpointing, events)
    if streams:
        callbacks.insert(0, streams)
    trainer = Trainer(
        config=config,
        launch=launch,
        groups=groups,
        engine=engine,
        batches=training_batches(config, data, groups, dealt),
        randomness=randomness,
        votes=votes,
        callbacks=callbacks,
    )
    return trainer, checkpointing


def check_size(trainer: Trainer) -> None:
    """A model of another size than its configuration says would make every figure of the run wrong."""
    config = trainer.config
    built = trainer.engine.parameter_count()
    expected = count_parameters(config.model, config.lengths).total
    assert built == expected, f"the engine has {built:,} parameters, the configuration {expected:,}"


def record_data(trainer: Trainer, data: RunData) -> None:
    """Put on record what the launch reads."""
    if trainer.is_first_rank:  # which alone records
        config = trainer.config
        validated = config.evaluation.samples if config.evaluation else 0
        plan = data.plan(training_samples(config), validated)
        trainer.emit(DataRecord(trainer.progress.step, config.best_group, record_of(data, plan)))


def record_failure(trainer: Trainer, error: Exception) -> None:
    """Put on record what this rank failed of; rank 0 may know nothing of it, or only that a connection broke."""
    for callback in trainer.callbacks:
        with _not_hiding(error):
            callback.on_failure(trainer, error)
    if not trainer.is_first_rank:
        with _not_hiding(error):
            writer = EventWriter(trainer.launch.run.events, trainer.launch.id, f"rank{trainer.groups.rank:05d}")
            EventRecorder(writer).on_failure(trainer, error)
            writer.close()


@contextmanager
def _not_hiding(error: Exception) -> Iterator[None]:
    """A full disk is often what a run fails of: that it also keeps a failure off the record must not hide it."""
    try:
        yield
    except (OSError, TrainingFailed) as unrecorded:
        if str(unrecorded) != str(error):
            print(f"note: the failure is not on record: {unrecorded}", file=sys.stderr, flush=True)


def dealt_samples(config: RunConfig, data: RunData, groups: ProcessGroups) -> DealtSamples | None:
    """What rank 0 reads of the run's text sources for all; None for a run without any."""
    samples, loader, seed = data.training(config.training.seed), config.data.loader, config.training.seed
    if not samples.streams:
        return None
    ahead = (loader.prefetch + 1) * config.training.global_batch_size

    def open_stream(source: int, known: Sequence[StreamPosition]) -> Cursor:
        opened = data.sources[source]
        assert isinstance(opened, OpenedText)
        return opened.open_reader(seed, known, ahead, loader.workers)

    return DealtSamples(samples, open_stream, groups)


def training_batches(
    config: RunConfig, data: RunData, groups: ProcessGroups, dealt: DealtSamples | None = None
) -> TrainingBatches:
    """What this rank reads, step by step.

    Args:
        dealt: of a run with text sources, if it was opened already.
    """
    training = config.training
    samples = dealt or dealt_samples(config, data, groups) or data.training(training.seed)
    skipped = SkippedSamples(config.data.skip_samples)
    sampler = BatchSampler(
        config.timetable.batch_size_at, training.micro_batch_size, groups.coordinates.data, groups.layout.data, skipped
    )
    end_of_document = data.end_of_document(config.document_ends_needed_by)
    special = data.special_tokens(config.objective.token_roles)
    objective = build_objective(config.objective, training.seed, end_of_document, special)
    return TrainingBatches(
        samples, sampler, objective, config.model.vocabulary, groups, config.data.loader, config.timetable.end.samples
    )


def resume(trainer: Trainer, checkpointing: Checkpointing) -> None:
    """Continue from the newest whole checkpoint, if there is one; what is passed over or was changed is said.

    Raises:
        TrainyardError: the learning rate would jump at what is whole, or it was trained on other data than the
            configuration says: the launch was checked against a newer one.
    """
    allow_invalid, from_scratch = trainer.config.data.allow_invalid, trainer.config.checkpoint.allow_from_scratch
    told: set[str] = set()

    def skipped(path: Path, problems: list[str]) -> None:
        refused = inspect(path, allow_invalid).refused  # what is invalid, or of a later version, is not damaged
        told.add(path.name)
        trainer.emit(Message(f"skipping {'' if refused else 'damaged '}{path.name}: {'; '.join(problems)}"))

    tidy_up(trainer)
    folder = trainer.launch.run.checkpoints
    checkpoint = load_newest_whole(
        folder, trainer.engine.state(), trainer.groups, skipped, allow_invalid, from_scratch, state_problems
    )
    above = step_of(checkpoint.folder) if checkpoint else -1
    start = read_initial_weights(trainer.launch.directory) if checkpoint is None else None
    begins_from = Path(start.folder) if start else None
    found = other_work(trainer.launch.run, allow_invalid, above, begins_from) if trainer.is_first_rank else None
    others = trainer.groups.from_rank_0(found)
    if checkpoint is None:
        refuse(from_scratch_problems(trainer.launch.run, others, from_scratch))
    for line in told_together([each for each in others if Path(each.name).name not in told]):
        trainer.emit(Message(f"not resumed from: {line}"))
    if checkpoint is None and trainer.config.init_from is not None:
        begin(trainer, checkpointing, start)
    if checkpoint is not None:
        checkpointing.resume(trainer, checkpoint)
        remaining = trainer.config.timetable.steps - trainer.progress.step
        trainer.emit(Message(describe_resume(checkpoint, remaining)))
        continue_changes(trainer, checkpointing, SavedStep(checkpoint.folder, checkpoint.manifest))


def continue_changes(trainer: Trainer, checkpointing: Checkpointing, taken: SavedStep) -> None:
    """Refuse a jump of the learning rate that is not named, and data that is said to be other than it was; say and
    record what is set otherwise from here on.
    """
    config, problems, changed, records = trainer.config, list[str](), "", list[ChangeRecord]()
    if trainer.is_first_rank:
        found = (learning_rate_problems, second_rate_problems, data_behind_problems)
        problems = [problem for check in found for problem in check(taken, config)]
        changed = describe_changes(taken.folder, config)
        with suppress(TrainyardError):  # its configuration cannot be read: `changed` says so
            records = recorded_changes(taken, config)
    problems, changed, records = trainer.groups.from_rank_0((problems, changed, records))
    refuse(problems)
    if changed:
        trainer.emit(Message(changed))
    for record in records:
        trainer.emit(record)
    checkpointing.changes = continued_changes(changes_of(taken.manifest.facts), records)


def begin(trainer: Trainer, checkpointing: Checkpointing, start: InitialWeights | None) -> None:
    """Take the weights that the launch found by `init_from`; nothing else of their run."""
    if start is None:
        raise Refused(
            f"this launch expected to resume {trainer.config.name}, and did not look up what init_from "
            f"({trainer.config.init_from}) names; start the run again: it begins from there"
        )
    source = load_initial_weights(start, trainer.config, trainer.engine.state(), trainer.groups)
    checkpointing.begin_from(start, source)
    trainer.emit(Message(describe_start(start)))


def tidy_up(trainer: Trainer) -> None:
    """Remove what killed saves and deletions left; rank 0 does it, and says what it could not remove."""
    if not trainer.is_first_rank:
        return
    leftovers = remove_leftovers(trainer.launch.run.checkpoints)
    for path in leftovers.removed:
        trainer.emit(Message(f"removed {printable(path.name)}: a save or a deletion that was killed"))
    for complaint in leftovers.complaints:
        trainer.emit(Message(complaint))
