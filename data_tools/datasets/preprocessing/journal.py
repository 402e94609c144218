"""When the journal is written: every few seconds, and seldom enough that it costs little."""

import time
from collections.abc import Callable

from data_tools.datasets.preprocessing.notes import Note
from data_tools.datasets.preprocessing.work_folder import WorkFolder

SECONDS = 5.0
"""of work that a kill loses at most, unless what it takes to write the journal asks for longer pauses"""
SHARE = 0.05
"""of the time that writing it may take: files must be on the disk before it"""


class Journal:
    """Writes a note into the work folder now and then."""

    def __init__(self, work: WorkFolder, note: Note) -> None:
        self._work = work
        self._note = note
        self._next = time.monotonic() + SECONDS

    def keep(self, update: Callable[[], None]) -> None:
        """Writes the note if it is time to.

        Args:
            update: brings it up to date, and everything it speaks of onto the disk.
        """
        if time.monotonic() >= self._next:
            self.write(update)

    def write(self, update: Callable[[], None] = lambda: None) -> None:
        """Writes the note."""
        started = time.monotonic()
        update()
        self._work.write_note(self._note)
        ended = time.monotonic()
        self._next = ended + max(SECONDS, (ended - started) / SHARE)
