"""Proves that a checkpoint and a folder of transformers are the same model: tensors, logits, greedy tokens."""

from __future__ import annotations

from pathlib import Path

from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.card import Card
from megatron_patches.transformers_exchange.card.source import Source
from megatron_patches.transformers_exchange.card.text import CardText


def prove(
    source: Source,
    folder: Path,
    format: TransformersFormat,
    config: RunConfig,
    text: CardText,
    by_block: bool,
    command: str,
) -> Card:
    """The card, for an export (from checkpoint to folder) and for an import (from folder to a new checkpoint).

    One model is in memory at a time, in fp32; with `by_block` one layer of it. This process must not have joined
    process groups: it starts those of a single process, and leaves them at the end.

    Args:
        command: as a person would write it to make the folder.

    Raises:
        NotEqual: they are not, or a number is NaN or infinite.
        Damaged: the folder is not whole (`open_folder`).
        Refused: the objective writes no text, so that no causal model is what was trained.
    """
    raise NotImplementedError
