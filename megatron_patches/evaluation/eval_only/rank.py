"""One rank of a launch with `--eval-only`: `python -m megatron_patches.evaluation.eval_only.rank LAUNCH_FOLDER`.

Exit codes as those of `megatron_patches.launch.rank`.
"""

import sys
from pathlib import Path

from megatron_patches.launch.rank import run_rank
from megatron_patches.run.run_directory import Launch


def main(launch_directory: Path) -> int:
    """The command line; returns its exit code."""
    return run_rank(Launch(launch_directory), _validate)


def _validate(launch: Launch) -> None:
    # with torch and DeepSpeed, which read the settings of a rank
    from megatron_patches.evaluation.eval_only.validation import validate

    validate(launch)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
