"""A job script that measures the best layouts, one array task each. Torch-free."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.run.config import RunConfig
from megatron_patches.tuning.ranking import Ranked
from slurm.job import ARRAY_LOG


def array_script(
    config: RunConfig,
    run: str,
    overrides: Sequence[str],
    best: Sequence[Ranked],
    nodes: int,
    gpus_per_node: int,
    record: Path,
) -> str:
    """The text of it; each task appends its line to the record, which `tools/tflops tune --record` then learns from."""
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={config.name}-tune",
        f"#SBATCH --nodes={nodes} --ntasks-per-node={gpus_per_node} --gres=gpu:{gpus_per_node} --time=00:20:00",
        f"#SBATCH --array=0-{len(best) - 1} --output={ARRAY_LOG}",
        "# the best layouts by prediction, measured; submit it from the checkout",
        "set -euo pipefail",
        "task=${SLURM_ARRAY_TASK_ID:?is set in a job of an array: start this script by sbatch}",
        "layouts=(",
        *(f"  {shlex.quote(' '.join(each.candidate.overrides(config)))}  # {each.seconds:.4g} s" for each in best),
        ")",
        f"tools/tflops bench {shlex.join([run, *overrides])} ${{layouts[$task]}} --peer none \\",
        f"  --processes {nodes * gpus_per_node} --alternations 10 --steps 1 --warmup 5 \\",
        f"  --table tune --record {shlex.quote(str(record))}",
    ]
    return "\n".join(lines) + "\n"
