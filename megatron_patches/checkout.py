"""Where this checkout keeps what it makes: runs and data. Imports nothing heavy."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def runs_root() -> Path:
    """Folder of all run directories: `$TRAINYARD_RUNS` (a relative one counts from the checkout), else `runs`."""
    return CHECKOUT / (os.environ.get("TRAINYARD_RUNS") or "runs")


def data_root() -> Path:
    """Folder of datasets and tokenizers: `$TRAINYARD_DATA` (a relative one counts from the checkout), else `data`."""
    return CHECKOUT / (os.environ.get("TRAINYARD_DATA") or "data")


def cache_root() -> Path:
    """Folder of what may be deleted at any time: `$TRAINYARD_CACHE`, else the user's own cache."""
    named = os.environ.get("TRAINYARD_CACHE")
    if named:
        return CHECKOUT / named
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard"
