"""`tools/evals table`: results of runs on a terminal, and in files for people and programs."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tools.evaluation_views.gathered import Gathered

_FILES = (".csv", ".json", ".parquet", ".md")

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Runs that were launched: names, parts that no other has, or directories."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(metavar="TASK[,TASK...]", help=r"Only these tasks, or labels such as mmlu.5-shot \[default: all]."),
]
Invalid = Annotated[
    bool, typer.Option("--invalid", help="Also results that are marked invalid, or whose checkpoint is; they are shown as such.")
]


def table_command(
    runs: Runs,
    tasks: Tasks = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC[,METRIC...]",
            help="These metrics, as METRIC or LABEL.METRIC "
            r"\[default: of each task the first it has of acc_norm, acc, exact_match, perplexity, loss].",
        ),
    ] = None,
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Every metric of each task.")] = False,
    parts: Annotated[
        bool, typer.Option("--parts", help="A row for each part of a task, such as a subject; a column for each step.")
    ] = False,
    invalid: Invalid = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a file, by its ending: .csv, .json or .parquet with a row for each number, parts and all metrics "
            "among them (--metric chooses); .md with the table.",
        ),
    ] = None,
    aggregated: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write what BigScience published of each run: tokens, checkpoints, and for each task and metric a list "
            "with a value for each of them; with --parts also of each part.",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For other programs: the rows of --output x.json.")] = False,
) -> None:
    """Results by step: a column for each task, with standard errors, and what is still to come.

    Results that were not asked the same (another version, other shots, other items) have columns of their own.

    Example: tools/evals table tr3d-1B3-more-warmup --tasks hellaswag,mmlu --output results.csv
    """
    from tools.evaluation_views.choice import metrics_of, words_of
    from tools.evaluation_views.outputs import check_output

    if output is not None:
        check_output(output, _FILES)
    if aggregated is not None:
        check_output(aggregated, (".json",))
    gathered, words = read(runs, tasks, invalid), words_of(metric or [])
    shown = metrics_of(gathered, words, all_metrics)
    if json_output or (output is not None and output.suffix != ".md"):
        _write_records(gathered, metrics_of(gathered, words, every=True), output, json_output)
    _write_table(gathered, shown, parts, output, aggregated, json_output, bool(words) or all_metrics)
    tell_unread(gathered)


def read(runs: Sequence[str], tasks: Sequence[str] | None, invalid: bool) -> "Gathered":
    """What there is of these tasks of the runs.

    Raises:
        Missing: a run or a task is not found, or has no result.
        TrainyardError: a run is named twice, or may be any of several.
    """
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import printable
    from tools.evaluation_views.choice import only_tasks, words_of
    from tools.evaluation_views.gathered import gather
    from tools.run_files.checkpoint_reference import find_run_directory

    words = words_of(tasks or [])
    folders = [find_run_directory(run) for run in runs]
    resolved = [folder.path.resolve() for folder in folders]
    for name, where in zip(runs, resolved, strict=True):
        if resolved.count(where) > 1:
            raise TrainyardError(f"{printable(name)} is named twice; name each run once")
    return only_tasks(gather(folders, invalid), words)


def tell_unread(gathered: "Gathered") -> None:
    """Says what could not be read; then the exit code is 1.

    Raises:
        Exit: something could not be read.
    """
    from tools.terminal import tell_passed_over

    tell_passed_over(list(gathered.problems), "tools/evals table RUN --json")
    if gathered.problems:
        raise typer.Exit(1)


def tell_notes(notes: Sequence[str]) -> None:
    """Prints lines of a legend, on a terminal none broken within a word."""
    import shutil
    import sys

    from megatron_patches.foreign.printable import printable
    from tools.terminal import tell

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for note in notes:
        shown = printable(note)
        lines = textwrap.wrap(shown, width, subsequent_indent="  ", break_on_hyphens=False) if width else [shown]
        for line in lines:
            tell(line)


def write_file(file: Path, content: bytes) -> None:
    """Writes a file whole, in place of one of that name, and says so."""
    from megatron_patches.atomic_files import write_atomically
    from tools.terminal import remark

    write_atomically(file, content)
    remark(f"written: {file}")


def _write_records(
    gathered: "Gathered", metrics: dict[str, list[str]], output: Path | None, json_output: bool
) -> None:
    from dataclasses import asdict

    from tools.evaluation_views.records import as_csv, as_json, as_parquet, records_of
    from tools.terminal import tell_json

    records = records_of(gathered, metrics)
    if output is not None and output.suffix != ".md":
        write_file(output, {".csv": as_csv, ".json": as_json, ".parquet": as_parquet}[output.suffix](records))
    if json_output:
        told = {"results": [asdict(record) for record in records], "notes": gathered.notes, "problems": gathered.problems}
        tell_json(told)


def _write_table(
    gathered: "Gathered",
    metrics: dict[str, list[str]],
    parts: bool,
    output: Path | None,
    aggregated_file: Path | None,
    json_output: bool,
    chosen: bool,
) -> None:
    from tools.evaluation_views.aggregated import aggregated
    from tools.evaluation_views.choice import metrics_of
    from tools.evaluation_views.columns import columns_of, part_columns, places_of, tokens_at
    from tools.evaluation_views.definitions import definitions_of
    from tools.evaluation_views.table import as_markdown, by_part, by_step, legend
    from tools.tables import print_matrix
    from tools.terminal import tell

    definitions = definitions_of(gathered.found)
    choose = part_columns if parts else columns_of
    columns = choose(gathered, metrics, definitions)
    if aggregated_file is not None:
        every = columns if chosen else choose(gathered, metrics_of(gathered, [], every=True), definitions)
        write_file(aggregated_file, aggregated(every, places_of(gathered), tokens_at(gathered)))
    table = (by_part if parts else by_step)(gathered, columns)
    notes = legend(table, gathered, columns, definitions)
    if output is not None and output.suffix == ".md":
        write_file(output, as_markdown(table, notes))
    if not json_output:
        print_matrix(table.head, table.rows, table.fixed, range(table.texts, len(table.head)))
        if notes:
            tell()
        tell_notes(notes)
