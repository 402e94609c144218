"""The model of a run's checkpoint, ready to score and to continue texts, whatever layout saved it; weights only."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.batch.fields import VISIBLE, ModelInputs
from megatron_patches.checkpoint.load import DamagedCheckpoint, load_alone
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer, own_tokenizer_files
from megatron_patches.errors import Damaged, Refused, TrainyardError, refuse
from megatron_patches.generation.generator import Generator
from megatron_patches.generation.model_on_rank import ModelOnRank, Texts
from megatron_patches.generation.model_ranks import ModelRanks
from megatron_patches.generation.scorer import Scorer
from megatron_patches.models.blueprint import Blueprint, draw_up
from megatron_patches.models.build import PlainModel, canonical_parameters
from megatron_patches.models.registry import architecture_of
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import info_of
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout_checks import check_tensor_parallel
from megatron_patches.run.reading import load_resolved


def start_alone() -> ProcessGroups:
    """The groups of one process; once a process."""
    return start_process_groups(Layout(1, 1, 1), torch.float32, alone=True)


@dataclass(frozen=True)
class LoadedModel:
    """A model and the tokenizer it was trained with, on the first of the ranks that hold it."""

    checkpoint: Path
    manifest: Manifest
    config: RunConfig
    tokenizer: Tokenizer
    ranks: ModelRanks

    @property
    def window(self) -> int:
        """Most ids that the model sees at once: those of a training sample."""
        return self.config.lengths.of("tokens")

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files lie; a single file where it is one."""
        files = own_tokenizer_files(self.checkpoint, self.manifest)
        return files.model.parent if files.of_folder else files.model

    def logits(self, ids: Sequence[int], prefix: int = 0) -> Tensor:
        """Logits of the token after each of these, fp32 `[len(ids), vocabulary]`; no more ids than a sample has places.

        The first `prefix` of them see each other whole, where the model was trained to read prefixes so.
        """
        return self.ranks.all_logits(Texts([ids], [prefix]))[0]

    def generator(self, ends: Collection[int] = ()) -> Generator:
        """What continues texts, until they end with the document, or with one of these ids."""
        document = self.tokenizer.end_of_document
        all_ends = {*ends, *([] if document is None else [document])}
        return Generator(self.ranks, self.window, self.tokenizer.vocab_size, all_ends)

    def scorer(self, batch_tokens: int = 4096) -> Scorer:
        """Scores texts.

        Args:
            batch_tokens: most ids that are read at once.
        """
        return Scorer(self.ranks, self.window, self.tokenizer.end_of_document, batch_tokens)


def load_model(
    folders: Sequence[Path],
    passed_over: Callable[[str], None],
    start_groups: Callable[[], ProcessGroups] = start_alone,
    processes: int = 1,
) -> LoadedModel:
    """The model of the first of these checkpoints that is whole, on this process and those that hold it with it.

    Args:
        passed_over: hears what is wrong with those before it.
        start_groups: joins the processes, once there is a checkpoint that they can load.

    Raises:
        TrainyardError: all of them are damaged; its tokenizer did not travel with it, and is not to be found; it was
            not trained to continue texts; or its matrices cannot be divided among the processes.
    """
    problems: list[str] = []
    groups: ProcessGroups | None = None
    for folder in folders:
        try:
            manifest, config = _described(folder)
            tokenizer = own_tokenizer(folder, manifest, config)
            prompt_inputs(config)
            _refuse_to_share(config, processes)
            _refuse_ids(config, tokenizer)
            groups = groups or start_groups()
            groups.from_rank_0((folder, tokenizer.vocab_size))
            ranks = load_together(folder, tokenizer.vocab_size, groups)
            return LoadedModel(folder, manifest, config, tokenizer, ranks)
        except Damaged as error:
            problems.append(str(error))
            passed_over(str(error))
    raise TrainyardError(
        f"no whole checkpoint to read: {'; '.join(problems)}. Restore one from a copy, or name another"
    )


def obey(groups: ProcessGroups) -> None:
    """What the other processes do: load what the first one loads, and do what that says, until they are ended."""
    while True:
        folder, known_ids = groups.from_rank_0(None)
        with suppress(TrainyardError):  # the first process tells it, and takes another or ends
            load_together(folder, known_ids, groups).obey()


def load_together(folder: Path, known_ids: int, groups: ProcessGroups) -> ModelRanks:
    """A checkpoint's model on every process of the groups, each with its own slices.

    Raises:
        DamagedCheckpoint, Refused: as `load_weights`, on all of them where one of them finds it.
    """
    found: list[TrainyardError | None] = [None] * groups.layout.world_size
    model: ModelOnRank | None = None
    problem: TrainyardError | None = None
    try:
        model = _load_on_rank(folder, known_ids, groups)
    except (DamagedCheckpoint, Refused) as error:
        problem = error
    dist.all_gather_object(found, problem, group=groups.control_group)
    if told := next((each for each in found if each is not None), None):
        raise told
    assert model is not None
    return ModelRanks(model, groups)


def _load_on_rank(folder: Path, known_ids: int, groups: ProcessGroups) -> ModelOnRank:
    manifest, config = _described(folder)
    groups = replace(groups, dtype=PRECISIONS[config.training.precision])
    inputs = prompt_inputs(config)
    model = load_weights(folder, manifest, config, inputs, groups)

    def reading(others: ModelInputs) -> PlainModel:
        return model.reading(_blueprint(config, others, groups))

    keeps_keys = architecture_of(config.model).keeps_keys
    return ModelOnRank(model, reading if keeps_keys else None, groups, known_ids, inputs.has(VISIBLE))


def _described(folder: Path) -> tuple[Manifest, RunConfig]:
    inspection = inspect(folder)
    if inspection.manifest is None or inspection.problems:
        raise DamagedCheckpoint("; ".join(inspection.problems))
    return inspection.manifest, load_resolved(folder / CONFIG)


def _refuse_ids(config: RunConfig, tokenizer: Tokenizer) -> None:
    rows = config.model.vocabulary
    if tokenizer.vocab_size > rows:
        raise Refused(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} ids, and the model of {config.name} knows "
            f"{rows:,}: it was trained with another tokenizer; name its folder"
        )


def _refuse_to_share(config: RunConfig, processes: int) -> None:
    shared = config.model_copy(update={"parallel": config.parallel.model_copy(update={"tensor": processes})})
    refuse(problem.text.replace("parallel.tensor", "--tensor-parallel") for problem in check_tensor_parallel(shared))


def prompt_inputs(config: RunConfig) -> ModelInputs:
    """What a run's model reads of a text that is to be continued.

    Raises:
        TrainyardError: it was not trained to continue text.
    """
    inputs = config.objective.prompt_inputs
    if inputs is None:
        raise TrainyardError(f"{config.name} was not trained to continue text ({config.objective.describe()})")
    return inputs


def load_weights(
    folder: Path, manifest: Manifest, config: RunConfig, inputs: ModelInputs, groups: ProcessGroups
) -> PlainModel:
    """A checkpoint's model for evaluation, of its weights alone, in the type and on the device of `groups`.

    Args:
        inputs: what the model is given to read; it need not be what it was trained with.
        groups: of one process, or of as many tensor-parallel ones: each reads its own slices, whatever layout saved
            the checkpoint.

    Raises:
        DamagedCheckpoint: a file is not as it was written.
        Refused: the checkpoint is another model's.
    """
    model = PlainModel(_blueprint(config, inputs, groups))
    pieces = [
        StatePiece(name, "weight", info_of(parameter).slice, 0, parameter.detach().view(-1), written_here=False)
        for name, parameter in canonical_parameters(model).items()
    ]
    load_alone(folder, manifest, pieces)
    return model.to(groups.device).eval()


def _blueprint(config: RunConfig, inputs: ModelInputs, groups: ProcessGroups) -> Blueprint:
    randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
    return draw_up(config.model, config.lengths, inputs, groups, randomness, seed=None)  # every weight is loaded
