"""The two stages of a shuffle: documents put into buckets, and buckets written in order, all keys alike."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.datasets.indexed_dataset_format import appended
from data_tools.datasets.preprocessing.batch import Batch
from data_tools.datasets.preprocessing.notes import Note, OutputNote, PlaceNote
from data_tools.datasets.preprocessing.outputs import Outputs, unfinished_prefix
from data_tools.datasets.preprocessing.progress import Progress, Watch
from data_tools.datasets.preprocessing.request import PreprocessRequest
from data_tools.datasets.preprocessing.shuffling import GROUP_TOKENS, Buckets, bits_of_buckets, order_key
from data_tools.datasets.preprocessing.work_folder import Journal

READ, SCATTERED = "read", "bucket"


def scatter(
    request: PreprocessRequest, note: Note, work: Path, dtype: np.dtype[Any], journal: Journal, watch: Watch
) -> None:
    """Puts the documents of every key into their buckets; then those in the order of reading are removed."""
    note.scattered = note.scattered or [PlaceNote() for _ in request.prefixes()]
    all_bytes = sum(each.tokens for each in note.read.current or []) * dtype.itemsize
    for key in range(len(note.scattered)):
        buckets = _buckets(request, note, work, dtype, key)
        for place in buckets.scatter():
            note.scattered[key] = place
            done = sum(each.tokens for each in note.scattered) * dtype.itemsize
            watch.progress(Progress("shuffling", place.documents, note.scattered[0].tokens, done // 2, all_bytes))
            journal.keep(buckets.sync)
    note.stage = "order"
    journal.write()
    for key in range(len(note.scattered)):  # lengths stay: they say where the buckets are
        appended(unfinished_prefix(work / READ, key, 0), ".bin").unlink(missing_ok=True)


def order(
    request: PreprocessRequest,
    note: Note,
    work: Path,
    dtype: np.dtype[Any],
    journal: Journal,
    watch: Watch,
    open_outputs: Callable[[OutputNote], Outputs],
) -> None:
    """Writes the buckets one after the other, each in its order."""
    every = [_buckets(request, note, work, dtype, key) for key in range(len(note.scattered))]
    outputs = open_outputs(note.made)
    all_bytes = sum(each.tokens for each in note.read.current or []) * dtype.itemsize
    number = every[0].number

    def note_now() -> None:
        note.made = outputs.note()

    with closing(outputs):
        for bucket in range(note.ordered, number):
            _write(outputs, [each.bucket(bucket) for each in every])
            note.ordered = bucket + 1
            done = all_bytes // 2 + all_bytes * (bucket + 1) // number // 2
            watch.progress(Progress("shuffling", outputs.documents, outputs.tokens, done, all_bytes))
            journal.keep(note_now)
        note.made = outputs.finish()


def _buckets(request: PreprocessRequest, note: Note, work: Path, dtype: np.dtype[Any], key: int) -> Buckets:
    assert request.shuffle_seed is not None
    read = note.read.current or []
    bits = bits_of_buckets(sum(each.tokens for each in read) * dtype.itemsize)
    return Buckets(
        unfinished_prefix(work / SCATTERED, key, 0),
        unfinished_prefix(work / READ, key, 0),
        read[key],
        dtype,
        order_key(request.shuffle_seed, request.share),
        bits,
        note.scattered[key],
    )


def _write(outputs: Outputs, batches: list[Batch]) -> None:
    """Appends documents in groups of bounded size, as all keys together have it."""
    ends = np.sum([each.ends() for each in batches], axis=0)
    first, documents = 0, batches[0].documents
    while first < documents:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + GROUP_TOKENS, "right")))
        outputs.add([each.part(first, last) for each in batches])
        first = last
