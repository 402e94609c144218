"""Proves that a checkpoint and a folder of transformers are the same model: tensors, logits, greedy tokens."""

from __future__ import annotations

import gc
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile

import torch

from megatron_patches.artefacts.provenance import known_revision, versions
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Refused
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.card import (
    GREEDY_TOKENS,
    Card,
    GreedyFigures,
    LogitFigures,
)
from megatron_patches.transformers_exchange.card.folder import TransformersFolder, open_folder
from megatron_patches.transformers_exchange.card.freed_memory import give_back_freed_memory
from megatron_patches.transformers_exchange.card.greedy import compare_greedy
from megatron_patches.transformers_exchange.card.logits import KeptLogits, places_in_parts
from megatron_patches.transformers_exchange.card.ours import our_model
from megatron_patches.transformers_exchange.card.source import Source
from megatron_patches.transformers_exchange.card.tensors import compare_tensors
from megatron_patches.transformers_exchange.card.text import CardText
from megatron_patches.transformers_exchange.card.theirs import their_model
from megatron_patches.transformers_exchange.card.tied_copies import without_tied_copy

_PROMPT = 32
"""tokens that the greedy continuation begins with, at most"""


def prove(
    source: Source,
    folder: Path,
    format: TransformersFormat,
    config: RunConfig,
    text: CardText,
    by_block: bool,
    command: str,
    imported: bool = False,
) -> Card:
    """The card, for an export (from checkpoint to folder) and for an import (from folder to a new checkpoint).

    One model is in memory at a time, in fp32; with `by_block` one layer of it. This process must not have joined
    process groups: it starts those of a single process, and leaves them at the end.

    Args:
        command: as a person would write it to make the folder.
        imported: the folder is another program's, which may store a tied head beside the table that it is.

    Raises:
        NotEqual: they are not, or a number is NaN or infinite.
        Damaged: the folder is not whole (`open_folder`).
        Refused: as `refuse_unprovable` says.
    """
    refuse_unprovable(config, text)
    if by_block:
        give_back_freed_memory()
    opened = open_folder(folder).by(format.current_name)
    if imported:
        opened = without_tied_copy(opened, format, format.pairs(config.model, config.parameters))
    tensors = compare_tensors(source, opened, format, config)
    logits, greedy = _compare_models(source, opened, format, config, text, by_block)
    return Card(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=known_revision(CHECKOUT).text,
        versions=versions() | {each: metadata.version(each) for each in ("torch", "transformers")},
        source=source.id,
        model_type=format.model_type,
        class_name=format.class_name,
        text=text.described,
        text_sha256=text.sha256,
        by_block=by_block,
        tensors=tensors,
        logits=logits,
        greedy=greedy,
    )


def refuse_unprovable(config: RunConfig, text: CardText) -> None:
    """What can be said before a folder is made.

    Raises:
        Refused: the objective writes no text, so that no causal model is what was trained; the model has one position;
            or the text has token ids that it does not know.
    """
    if config.objective.prompt_inputs is None:
        raise Refused(f"{config.name} was not trained to continue text ({config.objective.describe()})")
    if config.lengths.of("tokens") < 2:
        raise Refused(f"{config.name} has one position, and so continues no text")
    if int(text.ids.max()) >= config.model.vocabulary:
        raise Refused(
            f"{text.described}: a token id is beyond the model's {config.model.vocabulary:,}; give a text by --text"
        )


def _compare_models(
    source: Source,
    folder: TransformersFolder,
    format: TransformersFormat,
    config: RunConfig,
    text: CardText,
    by_block: bool,
) -> tuple[LogitFigures, GreedyFigures]:
    """Theirs comes first: ours then says of their greedy tokens, all at once, whether each is its likeliest too."""
    ids = torch.from_numpy(text.ids)
    parts = places_in_parts(ids, config.model.vocabulary)
    tokens = min(GREEDY_TOKENS, config.lengths.of("tokens") - 1)
    prompt = ids[:1, : min(_PROMPT, config.lengths.of("tokens") - tokens)]
    with TemporaryFile(dir=_scratch(folder.path)) as file:  # it has no name, and so is gone with this process
        kept = KeptLogits(file)
        with their_model(folder, format, by_block) as theirs:
            kept.keep(theirs.logits(ids, parts), config.model.vocabulary)
            continued = theirs.continued(prompt, tokens)
            del theirs
        gc.collect()  # transformers' first model of a process is held by a cycle, and ours must not lie beside it
        with our_model(source, config, by_block) as ours:
            figures = kept.compare(ours.logits(ids, parts))
            before_last = continued[:, :-1]
            (after,) = ours.logits(before_last, [torch.arange(before_last.shape[1])[prompt.shape[1] - 1 :]])
            return figures, compare_greedy(after[0].cpu(), continued[0, prompt.shape[1] :], prompt.shape[1])


def _scratch(folder: Path) -> Path | None:
    """Where logits are kept: beside the folder, on a disk with room, which the place of temporary files (None) need not
    be; but a folder that is imported may lie where nothing can be written."""
    return folder.parent if os.access(folder.parent, os.W_OK) else None
