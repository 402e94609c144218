"""The processes of this machine that hold a model together; the one that starts them is the first."""

import os
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist

from megatron_patches.errors import Refused, TrainingFailed
from megatron_patches.launch.rank import lost_another_rank
from megatron_patches.launch.rank_processes import NodeRanks, RankEnded, RankProcesses
from megatron_patches.launch.rank_settings import available_cpus
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups
from megatron_patches.sizes import counted

FOLLOWER = "megatron_patches.generation.follower"
HOST = "127.0.0.1"
GRACE = 10.0
"""seconds that this process has to notice that another one is gone; NCCL would wait for half an hour"""

NOTICE = 2.0
"""seconds in which a process whose connection broke is known to have ended"""


class LocalRanks:
    """The processes that hold a model: this one, and those that it starts. A context manager.

    The others end with the context, and the kernel ends them when this process ends, however it does.

    Args:
        tensor: processes that share each matrix.
        pipeline: stages, each of which has a part of the layers.

    Raises:
        Refused: there are GPUs, and fewer than processes.
    """

    def __init__(self, tensor: int, pipeline: int = 1) -> None:
        self._layout = Layout(tensor, pipeline, 1)
        self._others: RankProcesses | None = None
        self._ended: RankEnded | None = None
        self._seen = threading.Event()
        count = self._layout.world_size
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else count
        if gpus < count:
            sizes = {"--tensor-parallel": tensor, "--pipeline-parallel": pipeline}
            asked = " x ".join(f"{option} {size}" for option, size in sizes.items() if size > 1)
            raise Refused(
                f"{asked} needs {counted(count, 'GPU')}, and this machine shows {gpus}; give fewer, "
                "or hide them to run on the CPU: export CUDA_VISIBLE_DEVICES="
            )

    def start_groups(self) -> ProcessGroups:
        """Starts the others and joins them; one process alone needs no others."""
        layout, count = self._layout, self._layout.world_size
        if count == 1:
            return start_process_groups(layout, torch.float32, alone=True)
        threads = max(1, available_cpus() // count)
        torch.set_num_threads(threads)
        store = dist.TCPStore(HOST, 0, count, is_master=True, wait_for_workers=False)
        node = NodeRanks(count, first=1, count=count - 1, host=HOST, port=store.port, before=1)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-P", "-m", FOLLOWER, str(layout.tensor), str(layout.pipeline)]
        self._others = RankProcesses(command, node, environment)
        threading.Thread(target=self._watch, args=(self._others,), daemon=True).start()
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(count))
        return start_process_groups(layout, torch.float32, store=store)

    def _watch(self, others: RankProcesses) -> None:
        """Ends this process where another one is gone and the connection to it does not break."""
        event = others.next_event()
        if isinstance(event, RankEnded) and self._others is not None:
            self._ended = event
            self._seen.set()
            time.sleep(GRACE)
            if self._others is not None:
                print(f"error: {_ended(event)}", file=sys.stderr, flush=True)
                os._exit(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = isinstance(error, RuntimeError) and lost_another_rank(error)
        if lost:
            self._seen.wait(NOTICE)  # before the others are ended, which would pass for it
        ended = self._ended
        others, self._others = self._others, None
        if others is not None:
            others.end(grace=0)
        if lost:
            raise TrainingFailed(_ended(ended)) from None


def _ended(event: RankEnded | None) -> str:
    """What became of a process, and what a person does about it."""
    if event is None:
        return "the connection to a process that holds the model broke; run the command again"
    if event.code == -signal.SIGKILL:
        return f"process {event.rank} of those that hold the model was killed (out of memory?); run the command again"
    how = f"by signal {-event.code}" if event.code < 0 else f"with code {event.code}"
    return f"process {event.rank} of those that hold the model ended {how}; what it said is above"
