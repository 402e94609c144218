"""Tasks that encoders alone are asked, ready: everything that can be refused of their files has been. Torch-free."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from megatron_patches.artefacts.evaluations.result import DataFile, label_of
from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.fine_tuning import FineTuning
from megatron_patches.evaluation.tasks.formats.glue import GlueFormat
from megatron_patches.evaluation.tasks.formats.glue_files import Labelled, LabelledTexts, read_glue
from megatron_patches.evaluation.tasks.formats.local_format import Source
from megatron_patches.evaluation.tasks.formats.perplexity import read_texts
from megatron_patches.evaluation.tasks.formats.pseudo_perplexity import PSEUDO_PERPLEXITY
from megatron_patches.evaluation.tasks.task import TaskSettings


@dataclass(frozen=True)
class MaskedTextTask:
    """Texts of which every token is hidden once."""

    name: str
    settings: TaskSettings
    """`limit` counts texts"""
    texts: tuple[str, ...]
    """those that are asked"""
    data: tuple[DataFile, ...]

    version = PSEUDO_PERPLEXITY.version

    @property
    def label(self) -> str:
        """Name of its result."""
        return label_of(self.name, None, self.settings.limit, self.settings.length)

    @cached_property
    def definition(self) -> str:
        """sha256 of everything but the model that decides the numbers."""
        return _hash({"format": PSEUDO_PERPLEXITY.word, "texts": self.texts, **_said(self.version, self.settings)})


@dataclass(frozen=True)
class FineTuningTask:
    """Labelled texts, on which a copy of the encoder is fine-tuned and asked."""

    name: str
    settings: TaskSettings
    """`limit` counts items that are asked, of each part; all of train is learned from"""
    format: GlueFormat
    source: LabelledTexts
    """`asked` within the limit"""
    fine_tuning: FineTuning

    @property
    def version(self) -> str:
        """The version of the format."""
        return self.format.version

    @property
    def data(self) -> tuple[DataFile, ...]:
        """The files that it is read from."""
        return self.source.data

    @property
    def label(self) -> str:
        """Name of its result."""
        return label_of(self.name, None, self.settings.limit, self.settings.length)

    @cached_property
    def definition(self) -> str:
        """sha256 of everything but the model that decides the numbers."""
        return _hash(
            {
                "format": self.format.word,
                "train": self.source.train,
                "asked": self.source.asked,
                "fine_tuning": self.fine_tuning.facts(),
                **_said(self.version, self.settings),
            }
        )


EncoderTask = MaskedTextTask | FineTuningTask


def masked_text_task(name: str, source: Source, settings: TaskSettings) -> MaskedTextTask:
    """Reads and checks the texts.

    Raises:
        TrainyardError: the file is missing, damaged or none of texts; or there is an option that has no effect.
    """
    assert source.path is not None, "a format with files"
    _refuse_shots(name, PSEUDO_PERPLEXITY.word, source, settings)
    texts, data = read_texts(source.path)
    return MaskedTextTask(name, settings, tuple(texts[: settings.limit]), (data,))


def fine_tuning_task(name: str, format: GlueFormat, source: Source, settings: TaskSettings) -> FineTuningTask:
    """Reads and checks the files.

    Raises:
        TrainyardError: one is missing, damaged or none of the format; or there is an option that has no effect.
    """
    _refuse_shots(name, format.word, None, settings)
    read = read_glue(format, source)
    asked = replace(read, asked=_first(read.asked, settings.limit))
    return FineTuningTask(name, settings, format, asked, settings.fine_tuning or FineTuning())


def _first(rows: Sequence[Labelled], limit: int | None) -> Sequence[Labelled]:
    """The first ones of each part."""
    if limit is None:
        return rows
    parts = dict.fromkeys(row.part for row in rows)
    return [row for part in parts for row in [each for each in rows if each.part == part][:limit]]


def _refuse_shots(name: str, word: str, source: Source | None, settings: TaskSettings) -> None:
    if settings.shots or (source is not None and source.examples is not None):
        raise Refused(f"{name}: {word} is asked without solved items; leave out --shots and +FILE")


def _said(version: str, settings: TaskSettings) -> dict[str, Any]:
    return {"version": version, "limit": settings.limit, "length": settings.length}


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
