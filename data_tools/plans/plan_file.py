"""The file of a plan: little-endian, mapped, and as long as its header says.

Header: magic (8 bytes), version (uint32), kind (uint32), tokens that a sample reads (uint64), segments (uint64),
samples (uint64); then, one after the other, the arrays that its kind has:

windows  int64 starts[segments], int32 lengths[segments]; segment and sample are the same
packs    int64 starts[segments], int64 first_segments[samples + 1], int32 lengths[segments]
stream   int64 starts[segments], int64 ends[segments]: segment k is the tokens [ends[k - 1], ends[k]) of the stream
"""

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.atomic_files import HashingWriter, fsync_folder, temporary_path
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.mapped import mapped
from megatron_patches.foreign.printable import printable

MAGIC = b"TRAINPLN"
VERSION = 1
HEADER = struct.Struct("<8sIIQQQ")
PlanKind = Literal["stream", "windows", "packs"]
CODES: dict[PlanKind, int] = {"stream": 1, "windows": 2, "packs": 3}
KINDS = {code: kind for kind, code in CODES.items()}

Arrays = dict[str, NDArray[Any]]


class PlanHeader(NamedTuple):
    """What a plan's file says of itself."""

    kind: PlanKind
    read: int
    """tokens that a sample reads"""
    segments: int
    samples: int

    def layout(self) -> list[tuple[str, np.dtype[Any], int]]:
        """Name, type and number of elements of each array."""
        starts = ("starts", np.dtype("<i8"), self.segments)
        lengths = ("lengths", np.dtype("<i4"), self.segments)
        if self.kind == "windows":
            return [starts, lengths]
        if self.kind == "packs":
            return [starts, ("first_segments", np.dtype("<i8"), self.samples + 1), lengths]
        return [starts, ("ends", np.dtype("<i8"), self.segments)]

    @property
    def bytes(self) -> int:
        """Size of the whole file."""
        return HEADER.size + sum(dtype.itemsize * count for _, dtype, count in self.layout())


def make_again(path: Path) -> str:
    """What to do about a plan that cannot be used."""
    return f"delete {printable(path)}, and the next launch makes it again"


def map_plan(path: Path) -> tuple[PlanHeader, Arrays]:
    """A plan's header, and its arrays by name, mapped read-only; the size of the file does not matter.

    Raises:
        Missing: it is not there.
        Damaged: it is no plan, or longer or shorter than its header says.
        Refused: another version wrote it, or it is no plain file.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = _unpack(path, file.read(HEADER.size))
        if size != header.bytes:
            raise Damaged(
                f"{printable(path)} has {size:,} bytes, expected {header.bytes:,} from its own counts "
                f"({header.segments:,} segments, {header.samples:,} samples); {make_again(path)}"
            )
        return header, dict(_map(file, header))


def _unpack(path: Path, content: bytes) -> PlanHeader:
    if not content.startswith(MAGIC) or len(content) < HEADER.size:
        raise Damaged(f"{printable(path)} is no plan of samples, or is cut off; {make_again(path)}")
    _, version, code, read, segments, samples = HEADER.unpack(content)
    if version != VERSION:
        raise Refused(
            f"{printable(path)} is a plan of version {version}, this Trainyard reads version {VERSION}; "
            f"{make_again(path)}"
        )
    if code not in KINDS or (KINDS[code] == "windows" and segments != samples):
        raise Damaged(f"{printable(path)} has a damaged header; {make_again(path)}")
    return PlanHeader(KINDS[code], read, segments, samples)


def _map(file: BinaryIO, header: PlanHeader) -> Iterator[tuple[str, NDArray[Any]]]:
    content, offset = mapped(file), HEADER.size
    for name, dtype, count in header.layout():
        end = offset + dtype.itemsize * count
        yield name, content[offset:end].view(dtype)
        offset = end


class PlanWriter:
    """Collects a plan's arrays block by block and writes them as one file, which appears whole or not at all.

    Until then they lie in files without names in the same folder, of which a kill leaves nothing.
    """

    def __init__(self, path: Path, kind: PlanKind, read: int) -> None:
        self._path = path
        self._kind: PlanKind = kind
        self._read = read
        self._files = ExitStack()
        self._arrays = {name: (dtype, self._unnamed()) for name, dtype, _ in PlanHeader(kind, read, 0, 0).layout()}

    def _unnamed(self) -> BinaryIO:
        file = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115  the stack closes it
        return cast(BinaryIO, self._files.enter_context(file))

    def add(self, **arrays: NDArray[np.int64]) -> None:
        """Appends to arrays, by name.

        Raises:
            OSError: the disk is full.
        """
        for name, values in arrays.items():
            dtype, file = self._arrays[name]
            file.write(np.ascontiguousarray(values, dtype=dtype).data)

    def publish(self, segments: int, samples: int) -> FileRecord:
        """Writes the file and gives it its name, in place of one that has it; its name, size and hash.

        Raises:
            OSError: the disk is full; nothing is left, and what had the name is untouched.
        """
        header = PlanHeader(self._kind, self._read, segments, samples)
        with HashingWriter(temporary_path(self._path)) as writer:
            writer.write(HEADER.pack(MAGIC, VERSION, CODES[header.kind], header.read, segments, samples))
            for name, dtype, count in header.layout():
                _, file = self._arrays[name]
                assert file.tell() == count * dtype.itemsize, f"{name} has {file.tell()} bytes for {count} elements"
                file.seek(0)
                shutil.copyfileobj(file, writer, 1 << 20)
        try:
            writer.path.replace(self._path)
        except BaseException:
            writer.discard()
            raise
        fsync_folder(self._path.parent)
        return FileRecord(path=self._path.name, size=writer.size, sha256=writer.sha256)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
