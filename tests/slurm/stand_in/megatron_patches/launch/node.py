"""Stands in for a node: records what it was started with, then ends as STAND_IN says.

finish: exit code 0. fail: node 0 fails with 7, the others wait to be ended. kill: ended by SIGKILL.
stop: waits to be asked to stop, through SIGTERM, and then says that it has saved itself. stubborn: goes on then.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

RECORDED = (
    "CUDA_VISIBLE_DEVICES",
    "SLURM_CPUS_ON_NODE",
    "PYTHONPATH",
    "STAND_IN_PYTHON",
    "STAND_IN_CONTAINER",
    "LOADED",
)
launch_directory = Path(sys.argv[1])
rank = int(sys.argv[sys.argv.index("--node-rank") + 1])
behaviour = os.environ.get("STAND_IN", "finish")
record = {
    "arguments": sys.argv[1:],
    "host": socket.gethostname(),
    "folder": str(Path.cwd()),
    "environment": {name: os.environ.get(name) for name in RECORDED},
}
(launch_directory / f"node-{rank}.json").write_text(json.dumps(record))


def wait_for_request() -> None:
    print(f"node {rank} listens", flush=True)
    while not (launch_directory / "stop-requested").exists():
        time.sleep(0.02)
    print(f"node {rank} was asked to stop", flush=True)


if behaviour == "fail":
    if rank:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        time.sleep(60)
    (launch_directory / "failure.json").write_text(json.dumps({"rank": 0, "node": "node1", "exit_code": 7}))
    sys.exit(7)
if behaviour == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "stop":
    signal.signal(signal.SIGTERM, lambda *_: print(f"node {rank} got SIGTERM", flush=True))  # srun's, from scancel
    wait_for_request()
    (launch_directory / "stopped").touch()
if behaviour == "stubborn":
    wait_for_request()
    time.sleep(60)
