"""Where files that are computed from a dataset lie: beside it, or in `$TRAINYARD_PLANS` where its folder is read-only.

They can be made again from the dataset at any time; each has a manifest whose parent is the dataset.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from megatron_patches.errors import TrainyardError

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
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    raise TrainyardError(
        f"{beside} must be written, and its folder is read-only; name a folder for such files: export {FOLDER}=FOLDER"
    )
