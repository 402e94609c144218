"""Files that a launch makes of its data before it trains: what is made is said, and how far it is."""

import sys
import time

SILENT_SECONDS = 1.0
EVERY_SECONDS = 10.0


class PreparationProgress:
    """Tells people on stderr what takes longer than a second, and then every ten seconds."""

    def __init__(self) -> None:
        self._what = ""
        self._told = 0.0

    def __call__(self, what: str, done: int, of: int) -> None:
        """See `data_tools.opened_sources.OnPreparation`."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._told = what, now + SILENT_SECONDS - EVERY_SECONDS
        if now - self._told >= EVERY_SECONDS and of:
            self._told = now
            print(f"making {what}: {done / of:.0%} of {of:,}", file=sys.stderr, flush=True)
