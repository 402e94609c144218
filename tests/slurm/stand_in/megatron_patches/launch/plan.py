"""Stands in for the plan: accepts every run, and records its arguments in the launch's folder.

STAND_IN_PLAN_CODE: its exit code; STAND_IN_PLAN_SECONDS: how long it takes.
"""

import json
import os
import sys
import time
from pathlib import Path

arguments = sys.argv[1:]
print("planning", file=sys.stderr, flush=True)
time.sleep(float(os.environ.get("STAND_IN_PLAN_SECONDS", "0")))
code = int(os.environ.get("STAND_IN_PLAN_CODE", "0"))
if code:
    print("error: the plan says no", file=sys.stderr)
    sys.exit(code)

launch_directory = Path("runs").resolve() / "launch"
launch_directory.mkdir(parents=True)
(launch_directory / "plan.json").write_text(json.dumps(arguments))
nodes = int(arguments[arguments.index("--nodes") + 1]) if "--nodes" in arguments else 1
print("a container's greeting")
print(json.dumps({"launch_directory": str(launch_directory), "nodes": nodes, "processes_per_node": 3}))
