"""Loading: of every stored piece, what a rank's layout needs. No layout needs a conversion first.

A rank that reads a file whole hashes it on the way, so that bytes are read and verified at once; `resume.py` gives
each file to the rank that needs most of it. What others need of it they read by ranges.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.atomic_files import hash_stream
from megatron_patches.checkpoint.files.boxes import SubBox, sub_boxes
from megatron_patches.checkpoint.files.stored_files import StoredPiece, read_header
from megatron_patches.checkpoint.starting_point import TakenRows
from megatron_patches.dtypes import BYTES_OF_STORED
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.printable import shortened
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.tensor_slice import Range
from megatron_patches.parameters.torch_dtypes import STORED

CHUNK_BYTES = 16 << 20  # read at a time: what loading holds beside the state itself


# What reading odd content raises; a machine's own failures, such as a full memory, are not among them: they are no
# reason to call a checkpoint damaged.
ODD_CONTENT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)


class DamagedCheckpoint(Damaged):
    """Bytes of a checkpoint are not those that were written."""


@dataclass
class _Target:
    """A live piece as sub-boxes, and how many of its elements have arrived."""

    piece: StatePiece
    rows: TakenRows
    boxes: list[SubBox] = field(init=False)
    copied: int = 0

    def __post_init__(self) -> None:
        self.boxes = list(sub_boxes(self.piece.slice, self.piece.start, self.piece.start + self.piece.tensor.numel()))

    @property
    def wanted(self) -> int:
        """Elements that are to arrive."""
        return sum(prod(high - low for low, high in part) for box in self.boxes for part in self.parts(box.slice.box))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the stored tensor that it takes."""
        return (self.rows.stored, *self.piece.slice.global_shape[1:])

    def parts(self, box: tuple[Range, ...]) -> Iterator[tuple[Range, ...]]:
        """What lies of a box in the rows that are taken."""
        (first, last), *others = box
        for low, high in self.rows.ranges:
            if max(first, low) < min(last, high):
                yield ((max(first, low), min(last, high)), *others)


@dataclass(frozen=True)
class _Meeting:
    """Elements that a stretch of a stored piece and a live piece have in common."""

    target: _Target
    into: SubBox
    source: SubBox
    box: tuple[Range, ...]

    @property
    def elements(self) -> int:
        return prod(high - low for low, high in self.box)

    def copy(self, values: Tensor) -> None:
        """`values` are the stretch's elements, flat."""
        part = values[self.source.offset : self.source.offset + self.source.slice.elements]
        part = part.view(self.source.slice.shape)[self.source.slice.local(self.box)]
        into = self.target.piece.tensor[self.into.offset : self.into.offset + self.into.slice.elements]
        into.view(self.into.slice.shape)[self.into.slice.local(self.box)].copy_(part)
        self.target.copied += self.elements


class StateLoader:
    """Fills live pieces from the files of one checkpoint; no more than a chunk of a file is in memory at a time.

    fp32 training stores no master weights: there they are the weights.

    Args:
        initial: for weights that a run begins with: tables of which not all rows are taken, by name. Weights too are
            then filled from the stored masters where there are any, which are not rounded.
    """

    def __init__(
        self,
        folder: Path,
        stored: Iterable[StoredPiece],
        pieces: Iterable[StatePiece],
        initial: Mapping[str, TakenRows] | None = None,
    ) -> None:
        self._folder = folder
        self._files: dict[str, list[StoredPiece]] = defaultdict(list)
        for source in stored:
            self._files[source.file].append(source)
        held = {(source.name, source.kind) for sources in self._files.values() for source in sources}
        self._targets: dict[tuple[str, str], list[_Target]] = defaultdict(list)
        for piece in pieces:
            kind = "master" if initial is not None else piece.kind
            if kind == "master" and (piece.name, "master") not in held:
                kind = "weight"
            rows = piece.slice.global_shape[0]
            taken = (initial or {}).get(piece.name, TakenRows(rows, ((0, rows),)))
            self._targets[piece.name, kind].append(_Target(piece, taken))

    def bytes_needed(self) -> dict[str, int]:
        """Of each file, bytes that the live pieces take; files of which they take nothing are left out."""
        needed = {
            file: sum(
                meeting.elements * BYTES_OF_STORED[source.dtype]
                for source in sources
                for meeting in self._meetings(source, 0, source.elements)
            )
            for file, sources in self._files.items()
        }
        return {file: count for file, count in needed.items() if count}

    @torch.no_grad()
    def read(self, file: str, sha256: str | None) -> None:
        """Copy what is needed of a file. With its `sha256` every byte of it is read and hashed on the way.

        Raises:
            DamagedCheckpoint: the file is shorter than its header says, or has another hash; what was copied is worth
                nothing then.
            OSError: the file cannot be read.
        """
        path, digest = self._folder / file, hashlib.sha256() if sha256 else None
        sources, buffer = self._files.get(file, []), np.empty(CHUNK_BYTES, dtype=np.uint8)
        with FileReader(path) as reader:
            if digest:
                with path.open("rb") as header:
                    hash_stream(header, digest, sources[0].offset if sources else None)
            for source in sources:
                for first, last in _chunks(source):
                    meetings = self._meetings(source, first, last)
                    if meetings or digest:
                        width = BYTES_OF_STORED[source.dtype]
                        content = reader.read(source.offset + first * width, (last - first) * width, buffer)
                        if digest:
                            digest.update(content)
                        values = torch.from_numpy(content).view(STORED[source.dtype])
                        for meeting in meetings:
                            meeting.copy(values)
        if digest and digest.hexdigest() != sha256:
            raise DamagedCheckpoint(f"{path} does not have the sha256 that its manifest says")

    def missing(self) -> list[str]:
        """One sentence for each live piece of which the files read so far do not hold every element."""
        return [
            f"{self._folder} holds {target.copied:,} of {target.wanted:,} elements of "
            f"{target.piece.kind} of {target.piece.name}"
            for targets in self._targets.values()
            for target in targets
            if target.copied != target.wanted
        ]

    def _meetings(self, source: StoredPiece, first: int, last: int) -> list[_Meeting]:
        """What elements `first ... last` of a stored piece have in common with live ones."""
        targets = [
            target
            for target in self._targets.get((source.name, source.kind), ())
            if target.stored_shape == source.slice.global_shape
        ]
        if not targets:
            return []
        stretches = list(sub_boxes(source.slice, source.start + first, source.start + last))
        return [
            _Meeting(target, into, stretch, part)
            for target in targets
            for into in target.boxes
            for stretch in stretches
            if (box := stretch.slice.intersection(into.slice)) is not None
            for part in target.parts(box)
        ]


class FileReader:
    """Reads ranges of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, count: int, buffer: Any = None) -> Any:
        """uint8 `[count]`: the beginning of `buffer`, a numpy array that is long enough, or of a new one.

        Raises DamagedCheckpoint where the file ends before.
        """
        result = (np.empty(count, dtype=np.uint8) if buffer is None else buffer)[:count]
        into = memoryview(result)  # type: ignore[arg-type]  # numpy arrays are buffers
        done = 0
        while done < count:
            found = os.preadv(self._descriptor, [into[done:]], offset + done)
            if not found:
                raise DamagedCheckpoint(f"{self._path} ends at byte {offset + done:,}, within a tensor")
            done += found
        return result


def _chunks(source: StoredPiece) -> Iterator[tuple[int, int]]:
    step = CHUNK_BYTES // BYTES_OF_STORED[source.dtype]
    for first in range(0, source.elements, step):
        yield first, min(first + step, source.elements)


def state_files(manifest: Manifest, weights_alone: bool = False) -> list[str]:
    """The files of a checkpoint that hold tensors; those of weights hold nothing else, and their names say so."""
    beginning = "weights-" if weights_alone else ""
    paths = [file.path for file in manifest.files]
    return [path for path in paths if path.startswith(beginning) and path.endswith(".safetensors")]


def load_alone(
    folder: Path, manifest: Manifest, pieces: Sequence[StatePiece], rows: Mapping[str, TakenRows] | None = None
) -> None:
    """Fill live pieces in one process; each file of which something is needed is read once, whole, and hashed.

    Args:
        rows: only of weights: tables of which not all rows are taken, by name.

    Raises:
        DamagedCheckpoint: a file is not as it was written; some pieces may hold its numbers then.
        Refused: the checkpoint lacks elements of a piece: it was saved by another model.
    """
    try:
        files = state_files(manifest, weights_alone=all(piece.kind == "weight" for piece in pieces))
        stored = [piece for file in files for piece in read_header(folder / file)]
        loader = StateLoader(folder, stored, pieces, rows)
        hashes = {file.path: file.sha256 for file in manifest.files}
        for file in loader.bytes_needed():
            loader.read(file, hashes[file])
    except DamagedCheckpoint:
        raise
    except ODD_CONTENT as error:
        raise DamagedCheckpoint(f"{folder}: {shortened(error)}") from None
    except OSError as error:
        raise DamagedCheckpoint(f"{folder} cannot be read: {error}") from None
    if missing := loader.missing():
        raise Refused(f"{'; '.join(missing[:3])}; it was saved by another model, or by another version")
