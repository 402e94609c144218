"""What `tools/inventory` learns of runs from a real queue."""

import ast
import sys
from pathlib import Path

import pytest

from tests.slurm.checkout import CHECKOUT
from tests.slurm.cluster import Cluster

ASK = "from tools.run_views.state import read_queue; print(read_queue())"


@pytest.mark.slurm
def test_a_job_that_rehearses_is_not_its_runs(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("tr1a-demo", "tr2a-demo"):
        (tmp_path / f"{name}.slurm").write_text(
            f"#!/bin/bash\n#SBATCH --job-name={name} --output=/dev/null\nsleep 60\n"
        )
    jobs = [
        cluster.sbatch("tr1a-demo.slurm", "--training.seed", "7", "--rehearse", "20", cwd=tmp_path),
        cluster.sbatch("tr2a-demo.slurm", "--training.seed", "7", cwd=tmp_path, options=["--hold"]),
    ]
    try:
        assert ast.literal_eval(cluster.run(sys.executable, "-c", ASK, cwd=CHECKOUT).stdout) == {"tr2a-demo": "PENDING"}
    finally:
        for job in jobs:
            cluster.cancel(job)
