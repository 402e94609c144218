"""Whether a run can take the weights of a folder of transformers, and as what: everything that is known before the
weights are read. Torch-free, until shapes are compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.run_data import RunData
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer, tokenizer_id
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.tokenizer_files.same_ids import ids_that_are_new, refuse_other_ids
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.exchange.known_source import manifest_beside
from megatron_patches.foreign.printable import printable
from megatron_patches.models.interface.transformers_format import TensorPair
from megatron_patches.run.checks import check_run
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import text_preparation
from megatron_patches.transformers_exchange.card.folder import StoredTensor
from megatron_patches.transformers_exchange.foreign_model import ForeignModel, match_tensors, read_foreign_model
from megatron_patches.transformers_exchange.same_model import model_differences

_DIFFERENCES_TOLD = 12


@dataclass(frozen=True)
class ImportPlan:
    """An import that nothing speaks against but the numbers themselves."""

    found: ForeignModel
    tensors: Mapping[str, StoredTensor]
    """the folder's, by the names that the pairs have"""
    pairs: list[TensorPair]
    config: RunConfig
    """the run's, with as many rows of vocabulary and positions as the folder has: the artefact's"""
    tokenizer_vocabulary: int
    """largest id that the folder's tokenizer gives, plus one"""
    tokenizer_id: str
    """of the folder's tokenizer"""
    fresh: tuple[int, ...]
    """ids below `tokenizer_vocabulary` that are free in the folder's tokenizer, and tokens of the run's"""
    known: Manifest | None
    """by which the folder is an export of ours"""
    data: RunData
    """the run's, whose ids become parents of the artefact"""

    @property
    def elements(self) -> int:
        """Numbers in all weights."""
        return sum(row.elements for row in self.config.parameters)

    @property
    def described(self) -> str:
        """The folder in a few words."""
        return (
            f"{printable(self.found.folder.path)} ({self.found.format.model_type} of transformers, {self.dtypes}, "
            f"{self.elements:,} parameters)"
        )

    @property
    def dtypes(self) -> str:
        """Types of the folder's tensors as safetensors names them: `BF16, F32`."""
        theirs = {name for pair in self.pairs for name in pair.theirs}
        return ", ".join(sorted({self.tensors[name].dtype for name in theirs}))


def plan_import(path: Path, config: RunConfig, data: RunData) -> ImportPlan:
    """Look at a folder, and compare its model and its tokenizer with a run's.

    Raises:
        Missing: a file that must be there is not.
        Refused: it is not the run's model, not whole, or its token ids mean something else; every difference is told.
        Damaged: a file is not what its header says.
    """
    found = read_foreign_model(path)
    differences = model_differences(found.model, found.format.as_read(config.model))
    if differences:
        more = len(differences) - _DIFFERENCES_TOLD
        told = [*differences[:_DIFFERENCES_TOLD], *([f"and {more} more like these"] if more > 0 else [])]
        raise Refused(
            f"{printable(path)} is another model than {config.name}: {'; '.join(told)}. Make the run's model: section "
            f"what tools/import-hf {printable(path)} --show prints"
        )
    vocabulary, identity, fresh = _same_ids(path, config, data)
    stored = _with_their_rows(found, config)
    tensors, pairs = match_tensors(found, stored.parameters)
    return ImportPlan(found, tensors, pairs, stored, vocabulary, identity, fresh, manifest_beside(path, path), data)


def _with_their_rows(found: ForeignModel, config: RunConfig) -> RunConfig:
    """The run's configuration with the folder's numbers of token ids and positions, and with no row beyond them."""
    settings: dict[str, Any] = config.model_dump()
    theirs = found.model.model_dump()
    settings["model"] |= {key: theirs[key] for key in ("vocab_size", "vocab_multiple") if key in theirs}
    prompt = config.objective.prompt_inputs
    # a model of theirs that continues texts is causal, whatever the run makes of its weights
    if found.format.task == "text-generation" and (prompt is None or prompt.attention != "causal"):
        settings["objective"] = {"name": "causal"}
    counted = {row.row_for_each for row in config.parameters}
    if "positions" in counted and found.positions is not None:
        settings["data"]["sequence_length"] = found.positions
    stored = RunConfig.model_validate(settings)
    before = {problem.text for problem in check_run(config)}
    if new := [problem.text for problem in check_run(stored) if problem.text not in before]:
        raise Refused(
            f"with {theirs.get('vocab_size'):,} token ids and {found.positions} positions, as "
            f"{printable(found.folder.path)} has them, {config.name} would be no run: {'; '.join(new)}"
        )
    return stored


def _same_ids(path: Path, config: RunConfig, data: RunData) -> tuple[int, str, tuple[int, ...]]:
    """How many ids the folder's tokenizer gives, its id, and those that it leaves free and the run's does not."""
    try:
        files = find_tokenizer(path)
    except TrainyardError as error:
        raise type(error)(
            f"whether token ids of {printable(path)} mean what they mean to {config.name} is not known: {error}. Copy "
            "the files of the model's tokenizer into the folder"
        ) from None
    identity = tokenizer_id(files, config.data.allow_invalid)
    if identity == data.tokenizer_id:
        return data.tokenizer_vocabulary, identity, ()
    theirs = load_tokenizer(path, config.data.allow_invalid)
    ours = load_tokenizer(CHECKOUT / config.data.tokenizer, config.data.allow_invalid)
    fresh = ids_that_are_new(theirs, ours)
    refuse_other_ids(theirs, ours)
    return theirs.vocab_size, identity, fresh


def tokenizer_of(plan: ImportPlan) -> Tokenizer:
    """The folder's own."""
    return load_tokenizer(plan.found.folder.path, plan.config.data.allow_invalid)


def open_data(config: RunConfig) -> RunData:
    """The data of the run that an import is for."""
    return RunData(config.data, CHECKOUT, config.lengths, config.place_after, texts=text_preparation(config))
