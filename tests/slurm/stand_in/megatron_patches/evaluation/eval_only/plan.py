"""Stands in for the plan of a launch with `--eval-only`: records its arguments, and names another module for ranks."""

import json
import sys
from pathlib import Path

launch_directory = Path("runs").resolve() / "launch"
launch_directory.mkdir(parents=True)
(launch_directory / "plan.json").write_text(json.dumps(sys.argv[1:]))
rank = "megatron_patches.evaluation.eval_only.rank"
print(json.dumps({"launch_directory": str(launch_directory), "nodes": 1, "processes_per_node": 3, "rank": rank}))
