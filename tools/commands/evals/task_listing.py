"""What `tools/evals tasks` shows: the formats of local files; and how it writes tasks for lm-eval's command line."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.formats.all_formats import ENCODER_FORMATS, LOCAL_FORMATS
from megatron_patches.evaluation.tasks.formats.encoder_format import EncoderFormat
from megatron_patches.evaluation.tasks.formats.local_format import LocalFormat
from megatron_patches.evaluation.tasks.local_task import LocalTask
from megatron_patches.evaluation.tasks.prepare import local_task
from megatron_patches.evaluation.tasks.spec import LOSSES, TaskSpec, split_tasks
from megatron_patches.evaluation.tasks.task import TaskSettings
from megatron_patches.evaluation.tasks.written_folder import write_tasks
from tools.terminal import remark, tell, tell_filled

_NOTES = (
    "FILE is .jsonl or .json (also packed: .gz, .zst), or .parquet.",
    "FILE+EXAMPLES takes solved items for --shots from the second file.",
    "DEV+TRAIN names the file that is asked and the one that is learned from; they may be .tsv too.",
    "NAME=TASK gives the results another name.",
    "Any other word is a task of the harness: `lm-eval ls tasks` lists them.",
)
_LOSSES = {
    "validation": "the run's own validation groups, or one of them",
    "dataset": "a dataset's files PREFIX.bin and PREFIX.idx",
}
_INDENT, _COLUMN = 4, 13


def list_formats() -> None:
    """Prints what there is to say of each format, and how a row of it looks."""
    formats: list[LocalFormat | EncoderFormat] = [*LOCAL_FORMATS.values(), *ENCODER_FORMATS.values()]
    for format in formats:
        tell(format.word if format.source is None else f"{format.word}:{format.source.replace(' or ', '|')}")
        _tell_fact("keys" if format.source else "items", format.row)
        _tell_fact("asked", format.manner)
        _tell_fact("metrics", ", ".join(format.metrics))
        _tell_fact("example", format.example)
    for word, what in _LOSSES.items():
        tell(LOSSES[word])
        _tell_fact("items", what)
        _tell_fact("asked", "by the engine, as in training")
        _tell_fact("metrics", "loss, perplexity")
    tell()
    for note in _NOTES:
        tell_filled(note)


def _tell_fact(name: str, text: str) -> None:
    tell_filled(text, " " * _INDENT + name.ljust(_COLUMN - _INDENT), " " * _COLUMN)


def write(folder: Path, texts: Sequence[str], settings: TaskSettings) -> None:
    """Writes the tasks into a new folder, and prints the command line that asks them.

    Raises:
        TrainyardError: the folder cannot be made, or a task cannot be asked, or is none of local files.
    """
    specs = split_tasks(texts)
    if not specs:
        raise Refused("no task is named; name tasks of local files, as in --write FOLDER hellaswag:FILE")
    for spec in specs:
        _refuse_others(spec)
    written = [local_task(spec, settings) for spec in specs]
    write_tasks(folder, written)
    tell(_command(folder, written, settings))
    if ours := sorted({metric for task in written for metric in _own_metrics(task)}):
        remark(f"lm-eval has no {' and no '.join(ours)}, which tools/evals adds")


def _refuse_others(spec: TaskSpec) -> None:
    if spec.is_loss:
        raise Refused(f"{spec.name} is computed by the engine, and lm-eval has no such task; leave it out")
    if spec.is_of_encoders:
        raise Refused(f"{spec.name} is for encoders, which lm-eval's command line does not ask; leave it out")
    if not spec.is_local:
        raise Refused(f"{spec.name} is a task of the harness, which its command line knows; leave it out")


def _command(folder: Path, tasks: Sequence[LocalTask], settings: TaskSettings) -> str:
    model = "pretrained=EXPORT" + ("" if settings.length is None else f",max_length={settings.length}")
    limit = [] if settings.limit is None else ["--limit", str(settings.limit)]
    names = ",".join(task.name for task in tasks)
    return shlex.join(
        ["lm_eval", "--model", "hf", "--model_args", model, "--include_path", str(folder), "--tasks", names, *limit]
    )


def _own_metrics(task: LocalTask) -> list[str]:
    of_harness = {metric["metric"] for metric in task.format.asked["metric_list"]}
    return [metric for metric in task.format.metrics if metric.split(".")[0] not in of_harness]
