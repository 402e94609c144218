"""What ended a launch: the first process that failed, in words for people, on record in `failure.json`. Torch-free."""

import json
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from megatron_patches.artefacts.run_folder import CONFIG, FAILURE
from megatron_patches.atomic_files import create_once
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class Failure:
    """The process whose end ended the launch."""

    rank: int
    """among all processes of the launch"""
    node: str
    """host name"""
    exit_code: int
    """as a shell gives it: 128 + n where signal n ended the process"""
    time: str
    """UTC, ISO 8601"""
    text: str
    """which process ended how, and what is known of why"""

    @classmethod
    def of_rank(cls, rank: int, code: int, launch_directory: Path) -> "Failure":
        """A process of this node that has just ended.

        Args:
            code: as `subprocess` gives it: -n where signal n ended the process.
        """
        node = socket.gethostname()
        return cls(
            rank=rank,
            node=node,
            exit_code=128 - code if code < 0 else code,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            text=f"rank {rank} on {node} {_how(code)}{_why(code, launch_directory)}",
        )


def record_failure(failure: Failure, launch_directory: Path) -> None:
    """Writes `failure.json`, unless another node's is there: what failed first is the cause of the rest."""
    path = launch_directory / FAILURE
    try:
        create_once(path, (json.dumps(asdict(failure)) + "\n").encode())
    except OSError as error:  # a full disk, a deleted folder: often what failed, and no reason to hide it
        print(f"note: {path} could not be written: {error.strerror}", file=sys.stderr)
        with suppress(OSError):  # a full disk takes an empty file, which says at least that the launch is over
            path.touch()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"was ended by {known.get(-code, f'signal {-code}')}"


def _why(code: int, launch_directory: Path) -> str:
    if code == -signal.SIGBUS:
        return f": {_shortened_data(launch_directory) or _NO_FILE_IS_SHORT}"
    return ""


_NO_FILE_IS_SHORT = (
    "a file that it reads as memory was cut off or cannot be read, or /dev/shm is full (df -h /dev/shm); the run's "
    "dataset has its whole length"
)


def _shortened_data(launch_directory: Path) -> str:
    """Which files of the run's dataset are shorter than they were: reading a missing page ends a process by SIGBUS."""
    # only here: a node's process is to start its ranks at once, and these import numpy and every section
    from data_tools.datasets.indexed_dataset_format import shortened_files
    from data_tools.opened_sources import all_prefixes
    from megatron_patches.run.reading import load_resolved

    try:
        prefixes = all_prefixes(load_resolved(launch_directory / CONFIG).data, CHECKOUT)
    except (TrainyardError, OSError) as error:
        return f"a file that it reads as memory was cut off or cannot be read, perhaps one of its dataset ({error})"
    problems = [problem for prefix in prefixes for problem in shortened_files(prefix)]
    return f"{'; '.join(problems)}, then launch the run again: training reads them as memory" if problems else ""
