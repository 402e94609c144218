"""Where files that are computed from a dataset lie: beside it, or in `$TRAINYARD_PLANS` where its folder is read-only.

They can be made again from the dataset at any time; each has a manifest whose parent is the dataset.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable

FOLDER = "TRAINYARD_PLANS"


def places(prefix: Path, dataset_id: str, ending: str, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where a file that was computed from a dataset may lie, the likeliest first.

    Args:
        ending: what follows the dataset's name in the file's, such as `hashes`.
    """
    name = f"{prefix.name}.{ending}"
    elsewhere = environment.get(FOLDER)
    return [prefix.with_name(name), *([Path(elsewhere) / dataset_id[:16] / name] if elsewhere else [])]


def place_to_write(prefix: Path, dataset_id: str, ending: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where such a file is to be written: the first place whose folder may be written to; the folder is there then.

    Raises:
        TrainyardError: there is none.
    """
    beside, *elsewhere = places(prefix, dataset_id, ending, environment)
    if os.access(beside.parent, os.W_OK):
        return beside
    for path in elsewhere:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainyardError(
                f"{printable(path.parent)} cannot be made ({error.strerror}); let {FOLDER} name a folder that may be "
                "written to"
            ) from None
        return path
    raise TrainyardError(
        f"{printable(beside)} must be written, and its folder is read-only; name a folder for such files: "
        f"export {FOLDER}=FOLDER"
    )


@contextmanager
def written_whole(path: Path) -> Iterator[None]:
    """Around the writing of such a file: what the system does not let us write is told as people need it.

    Raises:
        TrainyardError: the disk is full, or the folder may not be written to after all.
    """
    try:
        yield
    except OSError as error:
        raise TrainyardError(
            f"{printable(path)} cannot be written ({error.strerror}); nothing is left of it. Free space there, or let "
            f"{FOLDER} name another folder and make the dataset's own read-only"
        ) from error
