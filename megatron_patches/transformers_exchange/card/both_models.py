"""A checkpoint's model beside a folder's, on the same text: one after the other, with what theirs said kept."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor

from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.card import GREEDY_TOKENS
from megatron_patches.transformers_exchange.card.folder import TransformersFolder
from megatron_patches.transformers_exchange.card.greedy import compare_greedy
from megatron_patches.transformers_exchange.card.logits import KeptLogits, places_in_parts
from megatron_patches.transformers_exchange.card.masked import compare_masked, likeliest, masked_parts, with_masks
from megatron_patches.transformers_exchange.card.ours import OurModel, our_model
from megatron_patches.transformers_exchange.card.padding import PaddedLogits, short_texts
from megatron_patches.transformers_exchange.card.source import Source
from megatron_patches.transformers_exchange.card.text import CardText
from megatron_patches.transformers_exchange.card.theirs import TheirModel, their_model

_PROMPT = 32
"""tokens that the greedy continuation begins with, at most"""


def compare_models(
    source: Source,
    folder: TransformersFolder,
    format: TransformersFormat,
    config: RunConfig,
    text: CardText,
    by_block: bool,
) -> Mapping[str, Any]:
    """Figures of logits and of what else the model is for, by their names in a `Card`.

    Raises:
        NotEqual: a figure is beyond its threshold.
    """
    ids = torch.from_numpy(text.ids)
    parts = places_in_parts(ids, config.model.vocabulary)
    use = _Filling(ids, text, config) if format.task == "fill-mask" else _Continuing(ids, config)
    with TemporaryFile(dir=_scratch(folder.path)) as file:  # it has no name, and so is gone with this process
        kept = KeptLogits(file)
        with their_model(folder, format, by_block) as theirs:
            kept.keep(theirs.logits(ids, parts), config.model.vocabulary)
            use.keep(theirs)
            del theirs
        gc.collect()  # transformers' first model of a process is held by a cycle, and ours must not lie beside it
        with our_model(source, config, by_block) as ours:
            figures = kept.compare(ours.logits(ids, parts))
            return {"logits": figures, **use.compare(ours)}


class _Continuing:
    """A greedy continuation; ours says of their tokens, all at once, whether each is its likeliest too."""

    def __init__(self, ids: Tensor, config: RunConfig) -> None:
        positions = config.lengths.of("tokens")
        self._tokens = min(GREEDY_TOKENS, positions - 1)
        self._prompt = ids[:1, : min(_PROMPT, positions - self._tokens)]

    def keep(self, theirs: TheirModel) -> None:
        self._continued = theirs.continued(self._prompt, self._tokens)

    def compare(self, ours: OurModel) -> Mapping[str, Any]:
        length, before_last = self._prompt.shape[1], self._continued[:, :-1]
        (after,) = ours.logits(before_last, [torch.arange(before_last.shape[1])[length - 1 :]])
        return {"greedy": compare_greedy(after[0].cpu(), self._continued[0, length:], length)}


class _Filling:
    """Masked tokens filled in, and texts of several lengths in one batch."""

    def __init__(self, ids: Tensor, text: CardText, config: RunConfig) -> None:
        assert text.mask is not None, "refuse_unprovable has looked for a mask token"
        self._masked = with_masks(ids, text.mask)
        self._parts = masked_parts(ids, config.model.vocabulary)
        self._texts = short_texts(ids)

    def keep(self, theirs: TheirModel) -> None:
        self._filled = likeliest(theirs.logits(self._masked, self._parts))
        self._padded = PaddedLogits(self._texts, theirs.masked_logits)

    def compare(self, ours: OurModel) -> Mapping[str, Any]:
        def alone(text: Tensor) -> Tensor:
            (logits,) = ours.logits(text[None], [torch.arange(len(text))])
            return logits[0]

        masked = compare_masked(self._filled, ours.logits(self._masked, self._parts))
        return {"masked": masked, "padding": self._padded.compare(alone)}


def _scratch(folder: Path) -> Path | None:
    """Where logits are kept: beside the folder, on a disk with room, which the place of temporary files (None) need not
    be; but a folder that is imported may lie where nothing can be written."""
    return folder.parent if os.access(folder.parent, os.W_OK) else None
