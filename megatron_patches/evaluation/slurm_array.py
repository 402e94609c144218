"""A job script that evaluates checkpoints of a run, an array task each. Torch-free."""

import shlex
from collections.abc import Sequence

from slurm.job import ARRAY_LOG


def array_script(name: str, words: Sequence[str], run: str, steps: Sequence[int], gpus: int) -> str:
    """The text of it.

    Args:
        name: of the run, for the job's name.
        words: of `tools/evals run` after the run and its steps.
        run: as the command line takes it.
        steps: of the checkpoints, one a task.
        gpus: that a task needs.
    """
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}-evals",
        f"#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=8 --gres=gpu:{gpus} --time=04:00:00",
        f"#SBATCH --array=0-{len(steps) - 1} --requeue --open-mode=append --output={ARRAY_LOG}",
        "# Evaluates checkpoints, a task each; submit it from the checkout. A task that is started once more goes on.",
        "set -uo pipefail",
        'fail() { echo "error: $1" >&2; exit 2; }',
        "home=${TRAINYARD_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}",
        'while [ -n "$home" ] && [ ! -x "$home/tools/evals" ]; do home=${home%/*}; done',
        '[ -n "$home" ] || fail "no tools/evals above ${SLURM_SUBMIT_DIR:-$PWD}; submit from the checkout"',
        "# what slurm/launch takes from the site: its modules, and the Python that tools/ are to use",
        'if [ -n "${TRAINYARD_SITE:-}" ]; then',
        '  set +u -a && source "$home/slurm/sites/$TRAINYARD_SITE.sh" && set -u +a',
        "  # shellcheck disable=SC2086 # several modules",
        '  [ -z "${TRAINYARD_MODULES:-}" ] || module load $TRAINYARD_MODULES',
        "fi",
        f"steps=({' '.join(map(str, steps))})",
        '[ -n "${SLURM_ARRAY_TASK_ID:-}" ] || fail "this is no task of an array; start this script by sbatch"',
        "step=${steps[$SLURM_ARRAY_TASK_ID]:-}",
        f'[ -n "$step" ] || fail "there is no task $SLURM_ARRAY_TASK_ID; tasks are 0 to {len(steps) - 1}"',
        f'exec "$home/tools/evals" run {shlex.quote(run)} --steps "$step" \\',
        f"  {shlex.join(words)}",
    ]
    return "\n".join(lines) + "\n"
