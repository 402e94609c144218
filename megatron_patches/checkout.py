"""Where this checkout keeps what it makes: runs and data. Imports nothing heavy."""

import os
import pwd
import stat
import tempfile
from pathlib import Path

from megatron_patches.errors import TrainyardError

CHECKOUT = Path(__file__).resolve().parents[1]


def runs_root() -> Path:
    """Folder of all run directories: `$TRAINYARD_RUNS` (a relative one counts from the checkout), else `runs`."""
    return CHECKOUT / (os.environ.get("TRAINYARD_RUNS") or "runs")


def data_root() -> Path:
    """Folder of datasets and tokenizers: `$TRAINYARD_DATA` (a relative one counts from the checkout), else `data`."""
    return CHECKOUT / (os.environ.get("TRAINYARD_DATA") or "data")


def cache_root() -> Path:
    """Folder of what may be deleted at any time: `$TRAINYARD_CACHE`, else the user's own cache.

    A user without a home (a container's, a service's) has one below the folder for temporary files.

    Raises:
        TrainyardError: that folder belongs to another user.
    """
    named = os.environ.get("TRAINYARD_CACHE")
    if named:
        return CHECKOUT / named
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "trainyard"
    home = _home()
    return home / ".cache" / "trainyard" if home else _temporary_cache()


def _home() -> Path | None:
    """The user's home; None for one who has none, or a name for one (`/nonexistent`) that is no folder."""
    try:
        home = Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return home if home.is_dir() else None


def _temporary_cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"trainyard-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()  # its name is known to all, so another user may have made it, as a link
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            return folder
        reason = "it is another user's, or no folder"
    except OSError as error:
        reason = str(error.strerror)
    raise TrainyardError(
        f"there is no home folder for a cache, and {folder} cannot be one ({reason}); export TRAINYARD_CACHE=FOLDER"
    )
