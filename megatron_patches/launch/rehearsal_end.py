"""What a rehearsal has shown, and how the run itself is started.

    python -m megatron_patches.launch.rehearsal_end LAUNCH_FOLDER RUN.yaml STEPS_OF_THE_RUN [--section.key value ...]

`slurm/launch` starts it when a rehearsal's launch has ended, however it did.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import Event, effective, read_events
from megatron_patches.foreign.credentials import told
from megatron_patches.run.run_directory import Launch
from megatron_patches.sizes import counted, readable


@dataclass(frozen=True)
class Rehearsed:
    """The run that a rehearsal is of."""

    path: Path
    """its YAML, as it was named"""
    overrides: tuple[str, ...]
    """words of the command line, for the run itself too"""
    steps: int
    """of the whole run"""

    def command(self, launch_directory: Path) -> list[str]:
        """What `slurm/launch` gives to Python when the rehearsal's launch has ended."""
        module = "megatron_patches.launch.rehearsal_end"
        return ["-m", module, str(launch_directory), str(self.path), str(self.steps), *self.overrides]

    def start(self) -> str:
        """The line that starts the run itself, where the rehearsal was started."""
        script = self.path.with_suffix(".slurm")
        shell = "sbatch" if "SLURM_JOB_ID" in os.environ else "bash"
        words = [shell, str(script)] if script.exists() else ["slurm/launch", str(self.path)]
        return shlex.join([*words, *self.overrides])


def report(launch: Launch, run: Rehearsed) -> str:
    """The rehearsal in a few lines."""
    events = [event for event in read_events(launch.run.events) if event.launch == launch.id]
    steps = effective(events, "step")
    lines = [
        f"rehearsal of {run.path.stem} {_ending(events)}: {_did(events, len(steps))}; the run has "
        f"{counted(run.steps, 'step')}",
        *_cost(steps, run.steps),
        f"the run itself: {run.start()}",
        f"what the rehearsal left can go: rm -r {shlex.quote(str(launch.run.path))}",
    ]
    return "\n".join(lines)


def _ending(events: Sequence[Event]) -> str:
    if any(event.kind == "failure" for event in events):
        return "failed"
    outcomes = [event.facts["outcome"] for event in events if event.kind == "end"]
    told = {"stopped": "stopped (the same line continues it)"}
    return told.get(outcomes[-1], outcomes[-1]) if outcomes else "did not come to its end"


def _did(events: Sequence[Event], steps: int) -> str:
    saves = len(effective(list(events), "checkpoint"))
    validations = len({event.facts["step"] for event in effective(list(events), "validation")})  # one a group
    return ", ".join((counted(steps, "step"), counted(saves, "save"), counted(validations, "validation")))


def _cost(steps: Sequence[Event], whole: int) -> list[str]:
    """The later half of the steps counts: in the first ones kernels are chosen, and a batch may still grow."""
    if not steps:
        return []
    later = steps[len(steps) // 2 :]
    seconds = median(event.facts["seconds"] for event in later)
    took = timedelta(seconds=round(seconds * whole))
    peak = max((event.facts.get("memory_bytes", 0) for event in steps), default=0)
    memory = f"; {readable(peak)} of memory on rank 0 at most" if peak else ""
    return [f"{seconds:.3g} s a step: {took} for {counted(whole, 'step')}, without saves and validations{memory}"]


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit code."""
    launch_directory, path, steps, *overrides = arguments
    try:
        print(report(Launch(Path(launch_directory)), Rehearsed(Path(path), tuple(overrides), int(steps))), flush=True)
    except TrainyardError as error:
        print(f"error: {told(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
