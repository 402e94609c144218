"""The process that evaluates one checkpoint: it reads what to do from standard input, and ends with 1 where a task
failed, with 2 where the checkpoint cannot be asked."""

import json
import sys
from pathlib import Path

from megatron_patches.artefacts.evaluations.primary_metric import primary_metric
from megatron_patches.artefacts.evaluations.result import Metric, TaskResult
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.ending import end_by_term
from megatron_patches.errors import TrainyardError
from megatron_patches.evaluation.asked import Asked
from megatron_patches.evaluation.one_checkpoint import OneCheckpoint
from megatron_patches.evaluation.selection import candidate_at
from megatron_patches.foreign.credentials import told
from megatron_patches.foreign.streams import print_any_text
from megatron_patches.sizes import counted
from tools.start import INTERRUPTED
from tools.terminal import remark, tell


def main() -> int:
    """Evaluates what standard input names."""
    print_any_text()
    end_by_term()
    facts = json.load(sys.stdin)
    run, folder = RunFolder(Path(facts["run"])), Path(facts["folder"])
    try:
        candidate = candidate_at(folder)
        place = f"{run.name}@{candidate.step}"
        one = OneCheckpoint(
            run,
            candidate,
            Asked.of(facts["asked"]),
            tell=lambda result: _tell(place, result),
            hear=lambda text: remark(f"{place}: {text}", layout=True),
            announced=facts["announced"],
        )
        from megatron_patches.launch.rank_settings import quieten_libraries

        quieten_libraries()  # before what they are imported by
        return 0 if one.evaluate() else 1
    except (TrainyardError, OSError) as error:
        remark(f"error: {told(error)}", layout=True)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _tell(place: str, result: TaskResult) -> None:
    tell(f"{place} {result.label}: {shown_metric(result.metrics)} ({_amount(result)}, {_seconds(result.seconds)})")
    sys.stdout.flush()


def shown_metric(metrics: dict[str, Metric]) -> str:
    """The metric that stands for the task, with its standard error."""
    name = primary_metric(metrics)
    if name is None:
        return "no number"
    metric = metrics[name]
    error = "" if metric.standard_error is None else f" +- {metric.standard_error:.4f}"
    return f"{name} {metric.value:.4f}{error}"


def _amount(result: TaskResult) -> str:
    return counted(result.examples, "token" if "loss" in result.metrics else "item")


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    sys.exit(main())
