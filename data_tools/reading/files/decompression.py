"""Compressed files as streams of bytes: a truncated one is an error, and memory does not grow with what comes out."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_tools.reading.documents import compression_of
from data_tools.reading.files.stored_file import StoredFile
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.printable import printable, shortened

READ_AHEAD_BYTES = 1 << 20
ZSTD_PIECE_BYTES = 1 << 12
"""fed at a time: zstd makes at most 32,768 bytes of one, so a piece becomes 128 MiB at worst; reading takes a quarter
less time than with pieces of 1 KiB, and as much as with 16 KiB"""
ZSTD_WINDOW_BYTES = 1 << 31
"""the largest that the format's own program makes, with --long=31; it is what decompressing takes of memory"""


@contextmanager
def open_decompressed(path: Path, hashed: bool = False) -> Iterator[tuple[BinaryIO, StoredFile]]:
    """What a file holds, by its name's ending, and the file itself, whose position says how far reading is.

    Args:
        hashed: the file's own bytes are hashed as they are read.

    Raises:
        Damaged: the file is cut off, or not of its ending's format. Raised within the block, while it is read.
        Refused: it may not be read, or memory does not suffice for it.
    """
    packed = compression_of(path.name)
    try:
        with StoredFile(path, hashed) as raw, _stream(packed, raw) as stream:
            yield stream, raw
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, _BadStream) as error:
        raise Damaged(f"{printable(path)} is damaged ({shortened(error)}); copy it again") from error
    except MemoryError as error:
        raise Refused(f"{printable(path)} takes more memory to decompress than there is; pack it again") from error
    except OSError as error:
        if error.errno is None:  # bz2 has no error of its own
            raise Damaged(f"{printable(path)} is damaged ({shortened(error)}); copy it again") from error
        raise Refused(f"{printable(path)} cannot be read: {error.strerror}") from error


def _stream(packed: str, raw: StoredFile) -> BinaryIO:
    if packed == ".gz":
        return cast(BinaryIO, io.BufferedReader(_GzipStream(raw), READ_AHEAD_BYTES))
    if packed == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if packed == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if packed == ".zst":
        return cast(BinaryIO, io.BufferedReader(_ZstdStream(raw), READ_AHEAD_BYTES))
    return raw


class _BadStream(Exception):
    """What is read is not as its format has it."""


class _GzipStream(io.RawIOBase):
    """Members of gzip one after the other, zeros between and after them, by the reader of isal.

    It is 1.9 times as fast as Python's own, and refuses what that refuses.
    """

    def __init__(self, raw: StoredFile) -> None:
        from isal import igzip, igzip_lib

        self._error: Any = igzip_lib.IsalError
        self._file = igzip.GzipFile(fileobj=raw, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            return self._file.readinto(buffer)
        except self._error as error:
            raise _BadStream(error) from error


class _ZstdStream(io.RawIOBase):
    """Frames of zstd one after the other.

    The package's own stream_reader takes a truncated file for a whole one (0.25.0), and pyarrow's refuses windows of
    more than 128 MiB, which zstd --long=31 makes.
    """

    def __init__(self, raw: StoredFile) -> None:
        import zstandard

        self._raw = raw
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._frame: Any = None
        self._unused = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready:
            self._ready = memoryview(b"")  # an exhausted view holds what it is of
            piece = self._unused or self._raw.read(ZSTD_PIECE_BYTES)
            if not piece:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._ready = memoryview(self._decompress(piece))
        into = memoryview(buffer)
        count = min(len(into), len(self._ready))
        into[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, piece: bytes) -> bytes:
        self._frame = self._frame or self._decompressor.decompressobj()
        try:
            content: bytes = self._frame.decompress(piece)
        except self._error as error:
            if "not enough memory" in str(error):
                raise MemoryError from error
            raise _BadStream(error) from error
        self._unused = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return content
