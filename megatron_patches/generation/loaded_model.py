"""The model of a run's checkpoint, ready to score and to continue texts, whatever layout saved it; weights only."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import torch
import torch.distributed as dist
from torch import Tensor

from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkpoint.load import DamagedCheckpoint
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer, own_tokenizer_files
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.generation.evaluated_run import at_length, laid_out
from megatron_patches.generation.generator import Generator
from megatron_patches.generation.loading import LoadOrder, described, load_on_rank
from megatron_patches.generation.model_on_rank import ModelOnRank, Texts
from megatron_patches.generation.model_ranks import ModelRanks
from megatron_patches.generation.scorer import Scorer
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups
from megatron_patches.run.config import RunConfig


def start_alone() -> ProcessGroups:
    """The groups of one process; once a process."""
    return start_process_groups(Layout(1, 1, 1), torch.float32, alone=True)


@dataclass(frozen=True)
class LoadedModel:
    """A model and the tokenizer it was trained with, on the first of the ranks that hold it."""

    checkpoint: Path
    manifest: Manifest
    config: RunConfig
    """of the run; where another length was asked for, with that as its `data.sequence_length`"""
    tokenizer: Tokenizer
    ranks: ModelRanks

    @property
    def window(self) -> int:
        """Most ids that the model sees at once: those of a sample."""
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

    def close(self) -> None:
        """Nothing more is asked of it: its ranks can take another one, `load_model` with groups that have started."""
        self.ranks.release()


def load_model(
    folders: Sequence[Path],
    passed_over: Callable[[str], None],
    start_groups: Callable[[], ProcessGroups] = start_alone,
    tensor: int = 1,
    pipeline: int = 1,
    *,
    length: int | None = None,
    texts: bool = True,
) -> LoadedModel:
    """The model of the first of these checkpoints that is whole, on this process and those that hold it with it.

    Args:
        passed_over: hears what is wrong with those before it.
        start_groups: joins the processes, once there is a checkpoint that they can load; or gives those that have
            started, once the model that they held is closed.
        tensor: processes that share each matrix.
        pipeline: stages, each of which has a part of the layers.
        length: `data.sequence_length` in place of the run's own; None keeps that.
        texts: whether texts are to be scored or continued; without it only `ranks.sample_sums` is asked, of any
            objective.

    Raises:
        TrainyardError: all of them are damaged; its tokenizer did not travel with it, and is not to be found; it was
            not trained to continue texts; its matrices or layers cannot be divided among the processes; or its
            positions end before this length.
    """
    problems: list[str] = []
    groups: ProcessGroups | None = None
    for folder in folders:
        try:
            manifest, trained = described(folder)
            tokenizer = own_tokenizer(folder, manifest, trained)
            if texts:
                _require_texts(trained)
            config = at_length(trained, length)
            laid_out(config, tensor, pipeline)
            _refuse_ids(config, tokenizer)
            groups = groups or start_groups()
            order = LoadOrder(folder, tokenizer.vocab_size, length)
            groups.from_rank_0(order)
            return LoadedModel(folder, manifest, config, tokenizer, load_together(order, groups))
        except Damaged as error:
            problems.append(str(error))
            passed_over(str(error))
    raise TrainyardError(
        f"no whole checkpoint to read: {'; '.join(problems)}. Restore one from a copy, or name another"
    )


def obey(groups: ProcessGroups) -> Never:
    """What the other processes do: load what the first one loads, and do what that says, until they are ended."""
    while True:
        order = groups.from_rank_0(None)
        with suppress(TrainyardError):  # the first process tells it, and takes another or ends
            load_together(order, groups).obey()


def load_together(order: LoadOrder, groups: ProcessGroups) -> ModelRanks:
    """A checkpoint's model on every process of the groups, each with its own slices of its own stage.

    Raises:
        DamagedCheckpoint, Refused: as `load_weights`, on all of them where one of them finds it.
    """
    found: list[TrainyardError | None] = [None] * groups.layout.world_size
    model: ModelOnRank | None = None
    problem: TrainyardError | None = None
    try:
        model = load_on_rank(order, groups)
    except (DamagedCheckpoint, Refused) as error:
        problem = error
    dist.all_gather_object(found, problem, group=groups.control_group)
    if told := next((each for each in found if each is not None), None):
        raise told
    assert model is not None
    return ModelRanks(model, groups)


def _refuse_ids(config: RunConfig, tokenizer: Tokenizer) -> None:
    rows = config.model.vocabulary
    if tokenizer.vocab_size > rows:
        raise Refused(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} ids, and the model of {config.name} knows "
            f"{rows:,}: it was trained with another tokenizer; name its folder"
        )


def _require_texts(config: RunConfig) -> None:
    if config.objective.prompt_inputs is None:
        raise TrainyardError(
            f"{config.name} was not trained to continue text ({config.objective.describe()}); tools/evals asks it for "
            "the loss of its own objective: --tasks validation"
        )
