"""The datasets of one request in writing: one for each key, each in one piece or in shards of a number of tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.answers import counts_of
from data_tools.datasets.growing_file import GrowingFile
from data_tools.datasets.indexed_dataset_format import appended
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.preprocessing.batch import Batch
from data_tools.datasets.preprocessing.notes import DatasetNote, FileNote, OutputNote

DOCUMENT = np.dtype([("source", "<i4"), ("injected", "<i4")])
"""what is kept of each document beside its tokens, for the facts of a manifest"""
DOCUMENTS = ".documents"


class Outputs:
    """Datasets that grow document by document, all keys together; unfinished files lie in the work folder.

    Args:
        work: prefix of the unfinished files: WORK-KEY-SHARD.bin and so on, both counted from 0.
        prefixes: where the dataset of each key will lie, without the number of a shard.
        dtype: of the tokens.
        shard_tokens: a shard ends with the document that brings the first key's tokens to this many; None: one piece.
        note: where the files that lie there go on; what follows is removed.

    Raises:
        Damaged: the files have less than the note says.
    """

    def __init__(
        self,
        work: Path,
        prefixes: Mapping[str, Path],
        dtype: np.dtype[Any],
        shard_tokens: int | None,
        note: OutputNote,
    ) -> None:
        self._work = work
        self._prefixes = list(prefixes.values())
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._finished = list(note.finished)
        self._open: list[_OpenDataset] = []
        self._remove_behind(len(self._finished), note.current is not None)
        if note.current is not None:
            self._open = [self._dataset(key, each) for key, each in enumerate(note.current)]

    @property
    def tokens(self) -> int:
        """Tokens of the first key's dataset, of all shards."""
        finished = sum(shard[0].tokens for shard in self._finished)
        return finished + (self._open[0].writer.tokens if self._open else 0)

    @property
    def documents(self) -> int:
        """Documents of all shards."""
        finished = sum(shard[0].documents for shard in self._finished)
        return finished + (self._open[0].writer.documents if self._open else 0)

    def add(self, batches: Sequence[Batch]) -> None:
        """Appends documents: those of each key, as many of each."""
        documents, first = batches[0].documents, 0
        if self._shard_tokens is None:
            self._append(batches)
            return
        ends = batches[0].ends()
        while first < documents:
            before = int(ends[first - 1]) if first else 0
            wanted = self._shard_tokens - (self._open[0].writer.tokens if self._open else 0)
            last = min(documents, int(np.searchsorted(ends, before + wanted)) + 1)
            self._append([each.part(first, max(last, first + 1)) for each in batches])
            if self._open[0].writer.tokens >= self._shard_tokens:
                self._end_shard()
            first = max(last, first + 1)

    def _append(self, batches: Sequence[Batch]) -> None:
        if not self._open:
            self._open = [self._dataset(key, DatasetNote()) for key in range(len(self._prefixes))]
        for dataset, batch in zip(self._open, batches, strict=True):
            dataset.add(batch)

    def _dataset(self, key: int, note: DatasetNote) -> "_OpenDataset":
        shard = len(self._finished)
        return _OpenDataset(self.unfinished(key, shard), self.prefix(key, shard), self._dtype, note)

    def unfinished(self, key: int, shard: int = 0) -> Path:
        """Prefix of a dataset's files until they have their own names."""
        return unfinished_prefix(self._work, key, shard)

    def prefix(self, key: int, shard: int) -> Path:
        """Prefix of a dataset."""
        whole = self._prefixes[key]
        return whole if self._shard_tokens is None else appended(whole, f"-{shard:05}")

    def _end_shard(self) -> None:
        self._finished.append([each.finish() for each in self._open])
        self._open = []

    def begin(self) -> None:
        """Makes the first shard, if an empty one, where there is none."""
        if not self._open and not self._finished:
            self._open = [self._dataset(key, DatasetNote()) for key in range(len(self._prefixes))]

    def finish(self) -> OutputNote:
        """Completes all files, still under their unfinished names."""
        self.begin()
        if self._open:
            self._end_shard()
        return OutputNote(finished=self._finished)

    def note(self, on_disk: bool = True) -> OutputNote:
        """Where to go on; with `on_disk` also after a crash of the machine."""
        current = [each.note(on_disk) for each in self._open] if self._open else None
        return OutputNote(finished=list(self._finished), current=current)

    def flush(self) -> None:
        """Hands what was added to the system."""
        for each in self._open:
            each.flush()

    def close(self) -> None:
        """Closes the files as they are."""
        for each in self._open:
            each.close()
        self._open = []

    def _remove_behind(self, shards: int, current: bool) -> None:
        """Removes files of shards that were begun after the note."""
        kept = {f"{shard:05}" for shard in range(shards + current)}
        for path in self._work.parent.glob(f"{self._work.name}-*-*"):
            if path.name.removeprefix(f"{self._work.name}-").partition("-")[2].partition(".")[0] not in kept:
                path.unlink()


def unfinished_prefix(work: Path, key: int, shard: int) -> Path:
    """Prefix of a dataset's files in the work folder."""
    return appended(work, f"-{key}-{shard:05}")


class _OpenDataset:
    """One dataset in writing, and what is counted of it."""

    def __init__(self, unfinished: Path, prefix: Path, dtype: np.dtype[Any], note: DatasetNote) -> None:
        self._note = note.model_copy()
        self.writer = IndexedDatasetWriter(prefix, dtype, unfinished, note.mark())
        self._documents = GrowingFile(appended(unfinished, DOCUMENTS), DOCUMENT.itemsize * note.documents)

    def add(self, batch: Batch) -> None:
        self.writer.add_documents(batch.tokens, batch.lengths, batch.sequences)
        documents: NDArray[Any] = np.empty(batch.documents, dtype=DOCUMENT)
        documents["source"], documents["injected"] = batch.sources, batch.injected
        self._documents.write(documents.data)
        if batch.sequences is not None:
            self._note.empty_documents += int(np.count_nonzero(batch.sequences == 0))
            answers = counts_of(batch.lengths, batch.sequences)
            self._note.answers += answers.answers
            self._note.answer_tokens += answers.tokens

    def note(self, on_disk: bool) -> DatasetNote:
        if on_disk:
            self._documents.sync()
        return self._noted(self.writer.mark(on_disk)._asdict())

    def flush(self) -> None:
        self._documents.flush()
        self.writer.flush()

    def finish(self) -> DatasetNote:
        self._documents.sync()
        mark = self.writer.mark(on_disk=False)._asdict()
        self.writer.finish()
        self.close()
        files = [FileNote(size=each.size, sha256=each.sha256) for each in self.writer.files]
        return self._noted({**mark, "files": files})

    def _noted(self, changes: Mapping[str, Any]) -> DatasetNote:
        return self._note.model_copy(update=dict(changes))

    def close(self) -> None:
        self._documents.close()
        self.writer.close()
