"""One rank of a launch: `python -m megatron_patches.launch.rank LAUNCH_FOLDER`, as `node.py` beside it starts it.

Exit codes: 0 finished, or stopped to be continued (then the launch's folder has a file `stopped`, which the launcher
turns into 75: any code but 0 ends the other ranks), 2 bad input, anything else failed.
"""

import errno
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.foreign.streams import print_any_text
from megatron_patches.launch.rank_settings import quieten_libraries
from megatron_patches.run.run_directory import Launch
from megatron_patches.sizes import counted


def main(launch_directory: Path) -> int:
    """The command line; returns its exit code."""
    return run_rank(Launch(launch_directory), _train)


def _train(launch: Launch) -> None:
    from megatron_patches.training.train import train  # with torch and DeepSpeed, which read the settings

    train(launch)


def run_rank(launch: Launch, work: Callable[[Launch], None]) -> int:
    """Does what the ranks of a launch are for, on this one; the exit code of its process."""
    print_any_text()
    quieten_libraries()
    try:
        require_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        work(launch)
        return 0
    except (TrainyardError, TrainingFailed) as error:
        print(f"error on rank {os.environ['RANK']}: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, TrainyardError) else 1
    except RuntimeError as error:
        if not lost_another_rank(error):
            raise
        # the reason is what that rank says; a traceback of each survivor would bury it
        said = str(error).strip().splitlines()[0]
        print(f"rank {os.environ['RANK']} ends: its connection to another rank broke ({said})", file=sys.stderr)
        return 1
    except OSError as error:
        if (problem := storage_problem(error, launch.run.path)) is None:
            raise
        print(f"error on rank {os.environ['RANK']}: {problem}", file=sys.stderr, flush=True)
        return 1


_BROKEN = re.compile(
    r"gloo.*(closed by peer|reset by peer|Read error|Write error|Broken pipe)|ncclRemoteError", re.DOTALL
)


def lost_another_rank(error: RuntimeError) -> bool:
    """Whether a rank failed of another one's end, by what gloo and NCCL say of it."""
    return _BROKEN.search(str(error)) is not None


def storage_problem(error: OSError, run: Path) -> str | None:
    """What a person does about an error of the file system; None where it may be a mistake in the program."""
    reason, place = error.strerror, error.filename or run
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}: {reason}; make room there (df -h, df -i, your quota), then launch the run again"
    if error.errno in (errno.EIO, errno.ESTALE, errno.EROFS, errno.ENOTCONN):
        return f"{place}: {reason}: the file system failed; once it works, launch the run again"
    if error.errno == errno.ENOENT and not run.exists():
        return f"{run} was deleted while the run went on; restore it from a copy, or launch the run again to begin anew"
    return None


def require_gpu(local_rank: int, processes: int) -> None:
    """Where there are GPUs, each process has its own.

    Raises:
        TrainyardError: there is none left for this one.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and local_rank >= gpus:
        raise TrainyardError(
            f"{counted(processes, 'process', 'processes')} on {socket.gethostname()}, which has "
            f"{counted(gpus, 'GPU')} for them; use a layout of fewer "
            "processes (--parallel.tensor, --parallel.pipeline), or hide the GPUs to run on the CPU: "
            "export CUDA_VISIBLE_DEVICES="
        )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
