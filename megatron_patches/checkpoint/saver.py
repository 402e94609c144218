"""Saves of one launch, one at a time: the copy, the thread that writes it, what came of it."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from megatron_patches.artefacts.folders import Content
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
from megatron_patches.checkpoint.host_copy import HostCopy
from megatron_patches.checkpoint.save import CheckpointContent, WrittenCheckpoint, tidy, write_checkpoint
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece


@dataclass(frozen=True)
class SaveRecord:
    """A save that is done."""

    step: int
    content: Content
    reason: str
    """interval, ephemeral, stop, end, or why someone asked for it"""
    written: WrittenCheckpoint
    stall_seconds: float
    """how long training waited for the step's save"""
    write_seconds: float
    """from the copy to the last rename"""


@dataclass(frozen=True)
class SaveOrder:
    """What is to be saved of one step: `contents` one after the other, from the same copy; full before weights."""

    contents: tuple[Content, ...]
    reason: str


class Saver:
    """Every rank has one, and all are asked for the same in the same order.

    The memory for a copy of this rank's `pieces` is reserved here; where steps wait for the files, none is.
    """

    def __init__(
        self, checkpoints: Path, rules: CheckpointConfig, groups: ProcessGroups, pieces: Sequence[StatePiece]
    ) -> None:
        self._checkpoints = checkpoints
        self._rules = rules
        self._groups = groups
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._copy = HostCopy([piece for piece in pieces if piece.written_here]) if rules.asynchronous else None
        self._pending: Future[list[SaveRecord]] | None = None
        self._stall = 0.0

    @property
    def reserved_bytes(self) -> int:
        """Of the host's memory, for the copy."""
        return self._copy.bytes if self._copy else 0

    @property
    def busy(self) -> bool:
        """Whether a save was begun and not finished by `finish`; the same on every rank."""
        return self._pending is not None

    @property
    def done(self) -> bool:
        """Whether this rank's thread has nothing left to write of what was begun."""
        return self._pending is not None and self._pending.done()

    def begin(self, pieces: Sequence[StatePiece], content: CheckpointContent, order: SaveOrder) -> None:
        """Copy the pieces and begin to write them; without a copy, write them. `finish` comes first of one begun."""
        assert not self.busy
        started = perf_counter()
        written = [piece for piece in pieces if piece.written_here]
        if self._copy is not None:
            self._pending = self._thread.submit(self._write, self._copy.take(written), content, order, started)
        else:
            self._pending = self._thread.submit(self._write, written, content, order, started)
            self._pending.exception()  # waits; `finish` raises it
        self._stall = perf_counter() - started

    def finish(self) -> list[SaveRecord]:
        """Wait for what was begun; a record of each folder.

        Raises:
            TrainingFailed: on every rank, if any could not write or read back its part.
        """
        if self._pending is None:
            return []
        pending, self._pending = self._pending, None
        started = perf_counter()
        records = pending.result()
        self._stall += perf_counter() - started
        return [replace(record, stall_seconds=self._stall) for record in records]

    def close(self) -> None:
        """Let the thread end; what it is writing is written first, also behind a failure of training."""
        self._thread.shutdown(wait=True)

    def _write(
        self, pieces: Sequence[StatePiece], content: CheckpointContent, order: SaveOrder, started: float
    ) -> list[SaveRecord]:
        records = []
        for kind in order.contents:
            written = write_checkpoint(self._checkpoints, pieces, content, kind, self._groups)
            if kind == "full":
                # weights of the step are a child of it: `weights_of` makes the same manifest of the full one
                content = replace(content, parents=(written.id, *content.parents))
                written = tidy(written, self._rules, self._groups)
            seconds = perf_counter() - started
            records.append(SaveRecord(content.step, kind, order.reason, written, 0.0, seconds))
        return records
