"""Samples of streams on all ranks: rank 0 reads each stream once, and deals every step's samples out."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from data_tools.samples.blended import Dealt, Located, TrainingSamples
from data_tools.samples.source import Sample
from data_tools.streams.cursor import Cursor
from data_tools.streams.position import StreamPosition
from megatron_patches.errors import TrainyardError
from megatron_patches.parallel.process_groups import TIMEOUT, ProcessGroups

OpenStream = Callable[[int, Sequence[StreamPosition]], Cursor]
"""opens a source, by its position among the run's, given places from which it can be read; none is its beginning"""
_Rows = dict[str, NDArray[np.int32]]
"""arrays of samples by name, [samples, read]: what travels is half as large as samples are"""


class DealtSamples:
    """As `data_tools.samples.step_samples.SamplesByStep`. Made on every rank together, where a run reads streams.

    Rank 0's samples, or its error, reach all ranks in one message for each step, in a group of its own: the thread
    that prepares steps talks while the training thread does.

    Args:
        open_stream: called on rank 0 alone, when a stream is first read, and after a rest.
    """

    def __init__(self, samples: TrainingSamples, open_stream: OpenStream, groups: ProcessGroups) -> None:
        self.samples = samples
        here = samples.streams if groups.rank == 0 else ()
        self._streams = {number: _ReadStream(number, open_stream) for number in here}
        alone = groups.layout.world_size == 1
        self._group = None if alone else dist.new_group(backend="gloo", timeout=TIMEOUT)

    def prepare(self, places: NDArray[np.int64]) -> "DealtStep":
        """Read and deal out the samples of streams at the places of a global batch, int64 [global batch].

        Raises:
            TrainyardError: a stream cannot be read, or has ended: the same error on every rank.
        """
        located = self.samples.locate(places)
        wanted = {number: np.unique(located.number[located.source == number]) for number in self.samples.streams}
        wanted = {number: numbers for number, numbers in wanted.items() if len(numbers)}
        box: list[dict[int, _Rows] | TrainyardError | None] = [self._read(wanted) if self._streams else None]
        if self._group is not None and wanted:
            dist.broadcast_object_list(box, src=0, group=self._group)
        found = box[0]
        if isinstance(found, TrainyardError):
            raise found
        assert found is not None
        return DealtStep(self.samples, {number: _by_number(found[number], wanted[number]) for number in wanted})

    def _read(self, wanted: Mapping[int, NDArray[np.int64]]) -> dict[int, _Rows] | TrainyardError:
        """An error is a value here, since the other ranks wait for one."""
        try:
            return {number: self._streams[number].take(numbers) for number, numbers in wanted.items()}
        except TrainyardError as error:
            return error
        except Exception as error:  # noqa: BLE001  the other ranks wait; which error it is they are told
            return TrainyardError(f"a stream cannot be read: {type(error).__name__}: {error}")

    def positions(self, numbers: Sequence[int]) -> dict[str, StreamPosition]:
        """On rank 0: from where each stream gives its sample of that number, by the source's name.

        Args:
            numbers: of each of the run's sources, the next sample that is trained on.
        """
        found = self._streams.items()
        return {self.samples.sources[number].name: each.position_for(numbers[number]) for number, each in found}

    def begin_from(self, positions: Mapping[str, StreamPosition]) -> None:
        """On every rank, before the first step: places from which streams are read, by their sources' names; without
        one a stream is read from its beginning."""
        for number, stream in self._streams.items():
            position = positions.get(self.samples.sources[number].name)
            stream.begin_from([] if position is None else [position])

    def read_ahead(self, places: NDArray[np.int64]) -> None:
        """Have the streams that have samples at these places begin to read, which takes them a second or more."""
        sources = set(self.samples.locate(places).source.tolist()) if self._streams else set()
        for number in sources & self._streams.keys():
            self._streams[number].open()

    def rest(self) -> None:
        """End the processes that read; they begin again where they are asked to."""
        for stream in self._streams.values():
            stream.close()


class DealtStep:
    """As `data_tools.samples.step_samples.StepSamples`."""

    def __init__(self, samples: TrainingSamples, dealt: Dealt) -> None:
        self._samples = samples
        self._dealt = dealt

    def locate(self, places: NDArray[np.int64]) -> Located:
        """See `TrainingSamples`."""
        return self._samples.locate(places)

    def read(self, located: Located) -> list[Sample]:
        """The samples, in order; those of streams were dealt out."""
        return self._samples.read(located, self._dealt)

    def hashes(self, places: NDArray[np.int64], located: Located, samples: Sequence[Sample]) -> NDArray[np.uint64]:
        """See `TrainingSamples`."""
        return self._samples.hashes(places, located, samples)


class _ReadStream:
    """One stream on rank 0; what reads it starts with its first sample, or when it is opened."""

    def __init__(self, number: int, open_stream: OpenStream) -> None:
        self._number, self._open = number, open_stream
        self._cursor: Cursor | None = None
        self.known: list[StreamPosition] = []
        """places from which it can be read, until it is opened"""

    def begin_from(self, known: list[StreamPosition]) -> None:
        """Read from these places; what was opened to read from others is closed."""
        if known != self.known:
            self.close()
            self._cursor, self.known = None, known

    def open(self) -> Cursor:
        """What reads; it begins at the last known place."""
        if self._cursor is None:
            self._cursor = self._open(self._number, self.known)
        return self._cursor

    def take(self, numbers: NDArray[np.int64]) -> _Rows:
        """The samples of these numbers, ascending; those between them are read and thrown away."""
        cursor = self.open()
        taken = [sample for begin, end in _stretches(numbers) for sample in cursor.take(begin, end)]
        return {name: np.stack([sample[name] for sample in taken]).astype(np.int32) for name in taken[0]}

    def position_for(self, number: int) -> StreamPosition:
        """The last known place at or before a sample."""
        if self._cursor is not None:
            return self._cursor.position_for(number)
        return max(
            (each for each in self.known if each.samples <= number), key=lambda each: each.samples,
            default=StreamPosition(),
        )  # fmt: skip

    def close(self) -> None:
        """End what reads."""
        if self._cursor is not None:
            self._cursor.close()


def _stretches(numbers: NDArray[np.int64]) -> Iterable[tuple[int, int]]:
    """First and end of the runs of consecutive numbers."""
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    return ((int(part[0]), int(part[-1]) + 1) for part in np.split(numbers, cuts))


def _by_number(rows: _Rows, numbers: NDArray[np.int64]) -> dict[int, Sample]:
    whole = {name: values.astype(np.int64) for name, values in rows.items()}
    return {
        number: {name: values[row] for name, values in whole.items()} for row, number in enumerate(numbers.tolist())
    }
