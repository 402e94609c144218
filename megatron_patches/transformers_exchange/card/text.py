"""The text of a card: token ids at which two models are compared. Torch-free."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_tools.run_data import RunData
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.printable import printable
from megatron_patches.run.run_directory import text_preparation
from megatron_patches.transformers_exchange.card.card import LEAST_POSITIONS, LONGEST_SAMPLE

if TYPE_CHECKING:
    from data_tools.samples.source import SampleSource
    from data_tools.text.tokenizer import Tokenizer
    from megatron_patches.run.config import RunConfig

_DOCUMENTS = ("README.md", "ARCHITECTURE.md")
_TEXT_BYTES = 1 << 18
"""read of a file: 2,048 tokens are 8 to 12 kB of prose, and 256 kB even where a token is 128 spaces"""


@dataclass(frozen=True)
class CardText:
    """Samples of real text, all of one length."""

    ids: NDArray[np.int64]
    """`[samples, positions]`; 512 of them or more"""
    described: str
    """where they were taken from, as a phrase without paths of this machine"""
    mask: int | None = None
    """id that stands for a masked token; None where the model knows none"""
    note: str | None = None
    """why they are not of the run's validation samples, for people; it may name paths"""

    @property
    def sha256(self) -> str:
        """Of the ids' bytes (little-endian int64, row by row): 64 hexadecimal digits."""
        return hashlib.sha256(np.ascontiguousarray(self.ids, dtype="<i8").tobytes()).hexdigest()


def card_text(config: RunConfig, tokenizer: Tokenizer, given: Path | None, mask: int | None = None) -> CardText:
    """The file that was given, else the run's validation samples where its datasets are on this machine, else the
    documents of this checkout.

    Samples are as long as the model has positions, 2,048 at most, so that each row of a table of positions is read;
    there are 512 positions in all, or more.

    Args:
        mask: the tokenizer's id for a masked token.

    Raises:
        Missing: the file is not there.
        Refused: the file is no UTF-8 text, or has fewer tokens than that.
    """
    if mask is not None and mask >= config.model.vocabulary:
        mask = None
    return replace(_card_text(config, tokenizer, given), mask=mask)


def _card_text(config: RunConfig, tokenizer: Tokenizer, given: Path | None) -> CardText:
    if given is not None:
        return CardText(_shaped(tokenizer.encode(_beginning(given)), config, printable(given)), "a file (--text)")
    try:
        return _validation_text(config)
    except TrainyardError as error:
        texts = "\n".join(_beginning(CHECKOUT / name) for name in _DOCUMENTS)
        ids = _shaped(tokenizer.encode(texts), config, "the documents of this checkout")
        return CardText(ids, f"{' and '.join(_DOCUMENTS)} of Trainyard", note=str(error))


def _validation_text(config: RunConfig) -> CardText:
    """Validation samples, one after the other; nothing is prepared for them."""
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after, None, text_preparation(config))
    if not data.groups:
        raise Missing(f"{config.name} holds no text out for validation")
    group = next((each for each in data.groups if each.name == config.best_group), data.groups[0])
    ids = _shaped(_tokens(group.samples, _needed(config)), config, f"validation group {group.name}")
    if int(ids.max()) >= config.model.vocabulary:  # of an import: the run's tokenizer may have more tokens
        raise Refused(f"validation group {group.name} has tokens beyond the model's {config.model.vocabulary:,}")
    datasets = ", ".join(each[:12] for source in group.sources for each in source.dataset_ids[:1])
    return CardText(ids, f"validation samples of the run (group {group.name}, dataset {datasets})")


def _tokens(samples: SampleSource, needed: int) -> list[int]:
    """The first tokens of the first samples; what only fills a sample is left out."""
    found: list[int] = []
    for number in range(len(samples)):
        if len(found) >= needed:
            break
        sample = samples[number]
        kept = sample["segments"] >= 0 if "segments" in sample else slice(None)
        found += sample["tokens"][kept].tolist()
    return found


def _positions(config: RunConfig) -> int:
    return min(config.lengths.of("tokens"), LONGEST_SAMPLE)


def _needed(config: RunConfig) -> int:
    return -(-LEAST_POSITIONS // _positions(config)) * _positions(config)


def _shaped(ids: list[int], config: RunConfig, told: str) -> NDArray[np.int64]:
    needed = _needed(config)
    if len(ids) < needed:
        raise Refused(f"{told} has {len(ids):,} tokens, and a card compares {needed:,}; give a longer text (--text)")
    return np.array(ids[:needed], dtype=np.int64).reshape(-1, _positions(config))


def _beginning(path: Path) -> str:
    """The first 256 kB of a file of text, without the character that is cut at their end."""
    with open_plain(path) as file:
        content = file.read(_TEXT_BYTES)
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content, final=len(content) < _TEXT_BYTES)
    except UnicodeDecodeError as error:
        raise Refused(f"{printable(path)} is not UTF-8 text ({error.reason} at byte {error.start:,})") from None
