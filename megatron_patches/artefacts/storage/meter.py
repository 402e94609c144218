"""Counting bytes as they move, and holding them back to a bandwidth."""

import threading
import time
from collections.abc import Callable


class Meter:
    """Shared by all transfers of a sync."""

    def __init__(self, bytes_per_second: float | None = None, report: Callable[[int], None] | None = None) -> None:
        self.moved = 0
        """bytes that went over the wire, those of failed tries included"""
        self._rate = bytes_per_second
        self._report = report
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    @property
    def holds_back(self) -> bool:
        """Whether there is a bandwidth to keep to."""
        return self._rate is not None

    def count(self, size: int) -> None:
        """Counts bytes that were moved; waits until the bandwidth allows more."""
        with self._lock:
            self.moved += size
            if self._report is not None:
                self._report(size)
            if self._rate is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._rate
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)


class MeteredFile:
    """The first bytes of a file, counted as they are read: what a client is given to upload."""

    def __init__(self, path: str, size: int, meter: Meter) -> None:
        self._file = open(path, "rb")  # noqa: SIM115, PTH123  closed by `close`
        self._size = size
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        """Up to so many of the bytes that are left."""
        left = self._size - self._file.tell()
        content = self._file.read(left if size is None or size < 0 else min(size, left))
        if content:
            self._meter.count(len(content))
        return content

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "MeteredFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
