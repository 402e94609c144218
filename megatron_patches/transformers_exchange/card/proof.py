"""Proves that a checkpoint and a folder of transformers are the same model: tensors, logits, and what it is for."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from megatron_patches.artefacts.provenance import known_revision, versions
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Refused
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.both_models import compare_models
from megatron_patches.transformers_exchange.card.card import Card
from megatron_patches.transformers_exchange.card.folder import open_folder
from megatron_patches.transformers_exchange.card.freed_memory import give_back_freed_memory
from megatron_patches.transformers_exchange.card.source import Source
from megatron_patches.transformers_exchange.card.tensors import compare_tensors
from megatron_patches.transformers_exchange.card.text import CardText
from megatron_patches.transformers_exchange.card.tied_copies import without_tied_copy


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
    figures = compare_models(source, opened, format, config, text, by_block)
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
        **figures,
    )


def refuse_unprovable(config: RunConfig, text: CardText) -> None:
    """What can be said before a folder is made.

    Raises:
        Refused: the objective neither continues texts nor reads whole ones; the model has one position; texts are read
            whole and no token stands for a masked one; or the text has token ids that the model does not know.
    """
    objective = config.objective
    if objective.prompt_inputs is None and objective.text_inputs is None:
        raise Refused(
            f"{config.name} was neither trained to continue texts nor to read whole ones ({objective.describe()})"
        )
    if config.lengths.of("tokens") < 2:
        raise Refused(f"{config.name} has one position, and so reads no text")
    if objective.text_inputs is not None and text.mask is None:
        raise Refused(
            f"{config.name} fills in masked tokens, and the tokenizer names no mask_token that the model knows; "
            "name it in tokenizer_config.json"
        )
    if int(text.ids.max()) >= config.model.vocabulary:
        raise Refused(
            f"{text.described}: a token id is beyond the model's {config.model.vocabulary:,}; give a text by --text"
        )
