"""One rank of a launch: `python -m megatron_patches.launch.rank LAUNCH_FOLDER`, as `node.py` beside it starts it.

Exit codes: 0 finished, or stopped to be continued (then the launch's folder has a file `stopped`, which the launcher
turns into 75: any code but 0 ends the other ranks), 2 bad input, anything else failed.
"""

import os
import socket
import sys
from pathlib import Path

from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.launch.rank_settings import quieten_libraries
from megatron_patches.run.run_directory import Launch


def main(launch_directory: Path) -> int:
    """The command line; returns its exit code."""
    quieten_libraries()
    try:
        require_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        from megatron_patches.training.train import train  # with torch and DeepSpeed, which read the settings

        train(Launch(launch_directory))
        return 0
    except (TrainyardError, TrainingFailed) as error:
        print(f"error on rank {os.environ['RANK']}: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, TrainyardError) else 1


def require_gpu(local_rank: int, processes: int) -> None:
    """Where there are GPUs, each process has its own.

    Raises:
        TrainyardError: there is none left for this one.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and local_rank >= gpus:
        raise TrainyardError(
            f"{processes} processes on {socket.gethostname()}, which has {gpus} GPUs for them; use a layout of fewer "
            "processes (--parallel.tensor, --parallel.pipeline), or hide the GPUs to run on the CPU: "
            "export CUDA_VISIBLE_DEVICES="
        )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
