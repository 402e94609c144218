"""A text source of a run, opened: a sibling of `OpenedSource` without a length."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property, partial
from math import ceil
from typing import Any

from data_tools.data_config import DataConfig
from data_tools.opened_sources import OnPreparation, OpenedSource
from data_tools.reading.block import Part
from data_tools.samples.source import Sample
from data_tools.sources_config import SourceConfig
from data_tools.streams.cursor import Cursor, StreamCursor
from data_tools.streams.position import VERSION, StreamPosition
from data_tools.streams.reader import StreamReader, StreamRequest
from data_tools.text_sources.encoding import open_encoding, recipe_of
from data_tools.text_sources.facts import (
    TextFacts,
    TextRequest,
    identity_of,
    places_trained_on,
    places_validated_on,
    text_facts,
)
from data_tools.text_sources.parts import parts_of_text
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import shortened
from megatron_patches.sizes import counted

READ_HERE_WORKERS = 2
"""processes that tokenize for what is looked at beside training"""


class OpenedText:
    """One source of raw text.

    Args:
        held_out: opens the dataset of documents that are held out, by its name; None where nothing is.
        prepare: as `OpenedSource`.
    """

    def __init__(
        self, source: SourceConfig, config: DataConfig, request: TextRequest, prepare: OnPreparation | None
    ) -> None:
        self.name = source.name
        self.source = source
        self.text = request.text
        self._config = config
        self._request = request
        self._prepare = prepare
        self.held_out: OpenedSource | None = None
        """what is validated on; set by who opens datasets"""

    @cached_property
    def facts(self) -> TextFacts:
        """What the launch found out."""
        return text_facts(self._request, self._prepare)

    @property
    def identity(self) -> dict[str, Any]:
        """Which documents it reads, and what decides their order and their tokens beside the run's own settings."""
        text, facts = self.text, self.facts
        return {
            "text": facts.identity,
            "key": text.key,
            "append_eod": text.append_eod,
            "shuffle_documents": text.shuffle_documents,
            "reserved": sum(facts.reserved),
            "order": VERSION,
        }

    @property
    def stream_id(self) -> str:
        """A hash of the identity and the tokenizer, in place of datasets' ids."""
        canonical = json.dumps([self.identity, self._request.tokenizer_id], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def tokens(self) -> int | None:
        """An estimate from the sizes of its files; None where these are not known."""
        facts = self.facts
        return None if not facts.size or not facts.bytes_per_token else int(facts.size / facts.bytes_per_token)

    @property
    def trained_on(self) -> set[str]:
        """Where the parts lie that are trained on."""
        return places_trained_on(self._request)

    @property
    def validated_on(self) -> list[str]:
        """Where the parts lie of which documents are held out."""
        return places_validated_on(self._request, self.facts)

    @property
    def told(self) -> str:
        """What it is, in a few words."""
        text, facts = self.text, self.facts
        files = f"{counted(facts.files, 'shard' if text.is_of_hub else 'file')} of {shortened(text.path, 100)}"
        held_out = f"; held out: {shortened(facts.held_out_told, 200)}" if facts.held_out_told else ""
        return f"{files}, {_shuffled(text.shuffle_documents)}{held_out}"

    def open_reader(self, seed: int, known: Iterable[StreamPosition], prefetch_samples: int, workers: int) -> Cursor:
        """Reads in a process of its own, ahead of what is taken."""
        recipe = recipe_of(self.text, self._request.tokenizer)
        request = StreamRequest(
            settings=self._request.settings(seed, self.facts.reserved, self._max_epochs),
            open_parts=partial(training_parts, self._request, self.facts.identity),
            open_encoding=partial(open_encoding, recipe, self._config.allow_invalid),
        )
        places = list(known)
        start = max(places, key=lambda each: each.samples, default=StreamPosition())
        return StreamReader(request, start, prefetch_samples, workers, places)

    def samples(self, seed: int) -> "ReadText":
        """Samples by number, read in this process when the first one is asked for."""
        return ReadText(self, seed)

    def open_cursor(self, seed: int, known: Iterable[StreamPosition], closing: ExitStack) -> Cursor:
        """Reads in this process."""
        parts = training_parts(self._request, self.facts.identity)
        recipe = recipe_of(self.text, self._request.tokenizer)
        encode = closing.enter_context(open_encoding(recipe, self._config.allow_invalid, READ_HERE_WORKERS))
        # no limit of epochs here: a view of what was read may look at all of it
        settings = self._request.settings(seed, self.facts.reserved)
        key = settings.key(parts)
        return StreamCursor(parts, encode, settings, [each for each in known if each.key == key])

    @property
    def _max_epochs(self) -> int:
        """Whole epochs: where one ends is not known before."""
        return ceil(self.source.max_epochs or self._config.max_epochs)


def _shuffled(documents: int) -> str:
    return "in order" if documents == 1 else f"shuffled {documents:,} documents at a time"


def training_parts(request: TextRequest, identity: dict[str, Any]) -> list[Part]:
    """The parts that are trained on; of the hub those of the commit that the launch found, though it has a newer one.

    Raises:
        Refused: they are others than when the launch looked.
    """
    text, commit = request.text, identity.get("revision")
    if isinstance(commit, str):
        text = text.model_copy(update={"revision": commit})
    parts = parts_of_text(text, request.checkout)
    if (found := identity_of(parts)) != identity:
        raise Refused(
            f"the text of source {request.name} was changed since the launch looked at it: {json.dumps(identity)} then "
            f"and {json.dumps(found)} now; restore it, then start the launch again"
        )
    return parts.training


class ReadText:
    """The samples of a text source by number (`SampleStream`), one process of reading for all that are asked for.

    Close it, or the processes that tokenize stay until this one ends.
    """

    def __init__(self, opened: OpenedText, seed: int) -> None:
        self._opened, self._seed = opened, seed
        self._known: list[StreamPosition] = []
        self._cursor: Cursor | None = None
        self._closing = ExitStack()

    def begin_from(self, known: Iterable[StreamPosition]) -> None:
        """Places that a run's checkpoints kept, so that not all before a sample need be read. Those of other streams
        are left out."""
        self.close()
        self._known = list(known)

    def __getitem__(self, number: int) -> Sample:
        if self._cursor is None:
            self._cursor = self._opened.open_cursor(self._seed, self._known, self._closing)
            self._closing.callback(self._cursor.close)
        (sample,) = self._cursor.take(number, number + 1)
        return sample

    def close(self) -> None:
        """End what reads; it begins again with the next sample that is asked for."""
        self._cursor = None
        self._closing.close()
