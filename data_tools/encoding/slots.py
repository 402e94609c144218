"""Memory that processes share: what one puts into a slot, another takes out, whatever its size."""

import os
import pickle
import struct
from typing import Any

import numpy as np

from megatron_patches.errors import TrainyardError

KEPT = 8 << 20
"""bytes up to which a slot keeps its memory; blocks have 1 MB, and pages that are there already cost no fault"""
_COUNT = struct.Struct("<q")
_MOST_AT_ONCE = 1 << 30
"""bytes of one call; the kernel takes 2 GiB at most"""


class Slot:
    """A stretch of memory that child processes inherit. One writes, then another reads."""

    def __init__(self) -> None:
        self._file = os.memfd_create("trainyard-block")

    def put(self, value: Any) -> None:
        """Writes a value; arrays and `pickle.PickleBuffer`s in it are copied once."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        pieces = [memoryview(pickled), *(each.raw() for each in buffers)]
        sizes = [each.nbytes for each in pieces]
        at = self._write(_COUNT.pack(len(sizes)) + struct.pack(f"<{len(sizes)}q", *sizes), 0)
        for piece in pieces:
            at = self._write(piece, at)

    def take(self, writable: bool) -> Any:
        """The value, in memory of its own; a slot that grew gives its memory back.

        Args:
            writable: whether its arrays may be changed; a buffer that may not is a `bytes`.
        """
        (count,) = _COUNT.unpack(self._read(_COUNT.size, 0, False))
        at = _COUNT.size * (1 + count)
        sizes = struct.unpack(f"<{count}q", self._read(_COUNT.size * count, _COUNT.size, False))
        buffers = []
        for number, size in enumerate(sizes):
            buffers.append(self._read(size, at, writable and number > 0))
            at += size
        if at > KEPT:
            os.ftruncate(self._file, 0)
        return pickle.loads(buffers[0], buffers=buffers[1:])

    def close(self) -> None:
        """Gives the memory back."""
        os.close(self._file)

    def _write(self, data: "bytes | memoryview", at: int) -> int:
        view = memoryview(data).cast("B")
        while view:
            try:
                written = os.pwrite(self._file, view[:_MOST_AT_ONCE], at)
            except OSError as error:  # a limit on sizes of files holds for this memory too
                raise TrainyardError(
                    f"{at + len(view):,} bytes cannot be handed to another process: {error.strerror}; raise the limit "
                    "on sizes of files (ulimit -f), or give the job more memory"
                ) from error
            view, at = view[written:], at + written
        return at

    def _read(self, size: int, at: int, writable: bool) -> Any:
        if not writable and size <= _MOST_AT_ONCE:
            return os.pread(self._file, size, at)
        array = np.empty(size, np.uint8)
        read = 0
        while read < size:
            read += os.preadv(self._file, [array[read : read + _MOST_AT_ONCE].data], at + read)
        return array if writable else array.tobytes()
