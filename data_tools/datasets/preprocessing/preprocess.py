"""From text to datasets: `PREFIX.bin`, `PREFIX.idx`, `PREFIX.manifest.json`.

The stages, each of which goes on where a kill left it: tokens in the order of reading; with a seed, in buckets and
then in order; the files' names and manifests.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from data_tools.datasets.preprocessing.inputs import Inputs, inputs_of
from data_tools.datasets.preprocessing.made_up import MadeUp
from data_tools.datasets.preprocessing.notes import Note, OutputNote
from data_tools.datasets.preprocessing.ordering import order, scatter
from data_tools.datasets.preprocessing.outputs import Outputs, unfinished_prefix
from data_tools.datasets.preprocessing.progress import Progress, Watch
from data_tools.datasets.preprocessing.publishing import (
    DatasetSummary,
    Made,
    Publishing,
)
from data_tools.datasets.preprocessing.request import (
    PreprocessRequest,
    check_request,
    check_share,
    refuse_what_is_there,
    remove_dataset,
    shards_there,
)
from data_tools.datasets.preprocessing.settings import command_of, deciding, settings_facts
from data_tools.datasets.preprocessing.taking_up import begun, finished, taken_up
from data_tools.datasets.preprocessing.tokenizing import Tokenizing
from data_tools.datasets.preprocessing.work_folder import Journal, WorkFolder, locked_folder, remove_leftovers
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.recipe import Recipe
from data_tools.reading.entries import documents_of
from data_tools.reading.files.sources import NotRead
from data_tools.records.encoding import RecordEncoding
from data_tools.text.document_encoding import encode_chunk, ids_type
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from data_tools.domain_tokens.injection import Injection

READ, MADE = "read", "made"
"""names of files in the work folder: in the order of reading, and in another one"""


@dataclass(frozen=True)
class PreprocessSummary:
    """What was made, and how fast."""

    datasets: list[DatasetSummary]
    not_read: list[NotRead]
    """What the given folders hold beside documents."""
    bad: int
    """Entries that were left out."""
    text_bytes: int
    """That this process read, in UTF-8: what an earlier one did is not among it."""
    seconds: float
    library: str
    """What encoded; empty where nothing was left to be encoded."""

    @property
    def megabytes_per_second(self) -> float:
        """Text in UTF-8, 10**6 bytes a second."""
        return self.text_bytes / 1e6 / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all datasets together."""
        return sum(dataset.facts.tokens for dataset in self.datasets) / self.seconds


def preprocess(
    request: PreprocessRequest,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda line: None,
) -> PreprocessSummary:
    """Tokenizes text into one dataset for each key; document k of every dataset comes from the same place.

    Killed at any instant and called again with the same request it goes on, and ends with the same bytes. Called again
    after it ended, with the same inputs, it does nothing.

    Args:
        tell: is given lines for people, such as which unfinished work is continued.

    Raises:
        Refused: another process makes this dataset, or unfinished work of another request lies there.
        TrainyardError: bad input, or fewer tokens than were asked for. Nothing appears under the datasets' names then,
            and old ones are untouched.
    """
    started = time.perf_counter()
    check_share(request.share)
    inputs = inputs_of(request)
    tokenizer = load_tokenizer(request.tokenizer, request.allow_invalid, request.parse_special)
    check_request(request, tokenizer)
    form = request.records
    injection = request.arithmetic.injection(tokenizer, form is not None and form.template == "tokenizer")
    encoding = None
    if form is not None:
        encoding = RecordEncoding.of(form, request.tokenizer, request.append_eod, injection)
        encoding.check(tokenizer)
    with locked_folder(request.name) as work:
        making = _Making(request, inputs, tokenizer, encoding, injection, work, Watch(on_progress, tell))
        datasets = making.make()
    seconds = time.perf_counter() - started
    bad = datasets[0].facts.left_out
    return PreprocessSummary(datasets, inputs.not_read, bad, making.text_bytes, seconds, making.library)


class _Making:
    """One request on its way through the stages."""

    def __init__(
        self,
        request: PreprocessRequest,
        inputs: Inputs,
        tokenizer: Tokenizer,
        encoding: RecordEncoding | None,
        injection: "Injection | None",
        work: WorkFolder,
        watch: Watch,
    ) -> None:
        self._request = request
        self._inputs = inputs
        self._tokenizer = tokenizer
        self._encoding = encoding
        self._injection = injection
        self._work = work
        self._watch = watch
        self._dtype: np.dtype[Any] = ids_type(tokenizer.vocab_size)
        self.text_bytes = 0
        self.library = ""

    def make(self) -> list[DatasetSummary]:
        """All stages; if one fails, what can be continued stays."""
        request, work = self._request, self._work
        try:
            asked = deciding(request, self._inputs, self._encoding, self._tokenizer)
            note = taken_up(work, asked, request.overwrite, self._watch.tell)
            datasets = self._finished() if note is None and not request.overwrite else None
            if datasets is None:
                if (note is None or note.stage != "publish") and not request.overwrite:
                    refuse_what_is_there(request)
                if note is None:
                    work.clear()
                    remove_leftovers(request.prefixes().values())
                    note = begun(asked, len(request.prefixes()))
                datasets = self._stages(note, Journal(work, note))
        except BaseException:
            if not work.has_journal():
                work.remove()
            else:
                self._watch.tell(f"note: what is done is kept in {work.path}; the same command goes on from there")
            raise
        work.remove()
        return datasets

    def _finished(self) -> list[DatasetSummary] | None:
        """What an earlier call made of the same request."""
        settings = settings_facts(self._request, self._encoding, self._tokenizer)
        if (datasets := finished(self._request, self._inputs, settings, self._tokenizer)) is not None:
            self._watch.tell("note: the same command finished this before; add --overwrite to make it again")
        return datasets

    def _stages(self, note: Note, journal: Journal) -> list[DatasetSummary]:
        seed = self._request.shuffle_seed
        if note.stage == "tokenize":
            self._tokenize(note, journal)
        if note.stage in ("scatter", "order"):
            assert seed is not None
            if note.stage == "scatter":
                scatter(self._request, note, self._work.path, self._dtype, journal, self._watch)
            order(self._request, note, self._work.path, self._dtype, journal, self._watch, self._outputs(MADE))
        return self._publish(note, journal)

    def _outputs(self, stem: str) -> Callable[[OutputNote], Outputs]:
        """Opens the files of one order: the final one has shards."""
        request = self._request
        final = stem == MADE or request.shuffle_seed is None
        shard_tokens = request.shard_tokens if final else None
        return partial(Outputs, self._work.path / stem, request.prefixes(), self._dtype, shard_tokens)

    def _tokenize(self, note: Note, journal: Journal) -> None:
        request = self._request
        with EncodingPool(self._recipe(), request.workers, self._tokenizer, self._watch.tell) as pool:
            made_up = self._made_up(note)
            tokenizing = Tokenizing(
                request, self._inputs.parts, note, self._outputs(READ), made_up, self._watch, journal
            )
            tokenizing.run(pool)
            self.library = pool.proof.library
        self.text_bytes = tokenizing.text_bytes
        if request.shuffle_seed is not None:
            note.stage = "scatter"
            journal.write()

    def _recipe(self) -> Recipe:
        request = self._request
        return Recipe(
            request.tokenizer,
            tuple(request.json_keys),
            self._encoding,
            request.append_eod,
            request.parse_special,
            None if self._encoding is not None else self._injection,
            request.largest_document,
            None
            if request.max_length is None
            else request.max_length + 1,  # what is longer still shows, and is counted
            request.library,
        )

    def _made_up(self, note: Note) -> MadeUp | None:
        """The documents that are made up, for which a first reading counts the others."""
        request = self._request
        asked = request.arithmetic
        if not asked.synthetic_documents:
            return None
        if note.reading.counted is None:
            note.reading.counted = sum(
                len(documents_of(block, request.json_keys, request.largest_document).numbers)
                for part in self._inputs.parts
                for block in part.blocks()
            )
            note.part_began.counted = note.reading.counted

        def encode(texts: Any) -> Any:
            chunk = [(text,) for text in texts]
            [encoded] = encode_chunk(self._tokenizer, chunk, request.append_eod, self._injection)
            return encoded

        return MadeUp(note.reading.counted, asked.synthetic_documents, asked.drawn_from, encode)

    def _publish(self, note: Note, journal: Journal) -> list[DatasetSummary]:
        request = self._request
        stem, output = (READ, note.read) if request.shuffle_seed is None else (MADE, note.made)
        every = self._made(stem, output)
        settings = settings_facts(request, self._encoding, self._tokenizer)
        command = command_of(request, self._tokenizer)
        publishing = Publishing(self._tokenizer, settings, self._inputs, note.reading, self._dtype, command)
        facts = [publishing.facts(each) for each in every]
        if note.stage == "publish":
            remove_leftovers(each.prefix for each in every)  # of a kill while files were given their names
        else:
            note.stage = "publish"
            journal.write()
        names = {each.prefix for each in every}
        if request.shard_tokens is not None:
            for old in (each for prefix in request.prefixes().values() for each in shards_there(prefix)):
                if old not in names:
                    remove_dataset(old)
        return publishing.publish(every, facts)

    def _made(self, stem: str, output: OutputNote) -> list[Made]:
        opened = self._outputs(stem)(OutputNote(finished=output.finished))
        sharded = self._request.shard_tokens is not None
        return [
            Made(
                key,
                shard if sharded else None,
                opened.prefix(key, shard),
                unfinished_prefix(self._work.path / stem, key, shard),
                each,
            )
            for shard, datasets in enumerate(output.finished)
            for key, each in enumerate(datasets)
        ]
