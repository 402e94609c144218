"""Where the ranks of a launch find each other: a store that rank 0 opens, and everyone comes to within a bound."""

import os
from datetime import timedelta

import torch.distributed as dist

from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted

MEETING_TIMEOUT = timedelta(minutes=10)
"""from the first rank's arrival to the last one's: hundreds of nodes import torch from one file system in minutes"""


def meet() -> dist.Store:
    """The store at MASTER_ADDR and MASTER_PORT, once all ranks have come (RANK, WORLD_SIZE).

    Raises:
        TrainyardError: the port is taken, this rank does not reach it, or another rank did not come in time.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        return dist.TCPStore(host, port, world, is_master=rank == 0, timeout=MEETING_TIMEOUT)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise TrainyardError(
                f"port {port} on {host}, where the processes were to meet, was taken by another process; launch the "
                "run again, or choose a port that is free: export TRAINYARD_PORT=NUMBER"
            ) from None
        raise TrainyardError(
            f"no connection to rank 0 at {host} port {port} within {_minutes()} minutes ({_first_line(error)}): it has "
            f"not started, or the network between the nodes is closed; see that {host} can be reached from every node"
        ) from None
    except dist.DistStoreError as error:
        raise TrainyardError(
            f"not all {counted(world, 'process', 'processes')} came to {host} port {port} within {_minutes()} minutes "
            f"({_first_line(error)}): one has not started, or the network between the nodes is closed; see that "
            f"{host} can be reached from every node"
        ) from None


def _minutes() -> str:
    return f"{MEETING_TIMEOUT.total_seconds() / 60:g}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
