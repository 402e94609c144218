"""`tools/evals table`: results of runs on a terminal, and in files for people and programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tools.commands.evals.asked_results import Invalid, Runs, Tasks, read, tell_unread, write_file

_FILES = (".csv", ".json", ".parquet", ".md")


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
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Show every metric of each task.")] = False,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts", help="Show a row for each part of a task, such as a subject, and a column for each step."
        ),
    ] = False,
    invalid: Invalid = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a file, by its ending: .csv, .json or .parquet with a row for each number, those of parts and "
            "of all metrics too (--metric chooses); .md with the table.",
        ),
    ] = None,
    aggregated: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write the run as BigScience published its own: tokens, checkpoints, and for each task and metric a "
            "list with a value for each checkpoint; with --parts for each part too.",
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON for other programs: the rows of --output x.json.")
    ] = False,
) -> None:
    """Show results by step: a column for each task, with standard errors, pending and failed evaluations.

    Results of another definition (another version, other shots, other items) have columns of their own.

    Example: tools/evals table tr3d-1B3-more-warmup --tasks hellaswag,mmlu --output results.csv
    """
    from megatron_patches.errors import Refused
    from tools.evaluation_views.aggregated import aggregated as aggregated_content
    from tools.evaluation_views.choice import metrics_of, words_of
    from tools.evaluation_views.columns import columns_of, part_columns, places_of, tokens_at
    from tools.evaluation_views.definitions import definitions_of
    from tools.evaluation_views.outputs import check_output
    from tools.evaluation_views.records import as_rows, file_bytes, records_of
    from tools.evaluation_views.table import as_markdown, by_part, by_run, by_step, legend
    from tools.tables import print_matrix
    from tools.terminal import tell, tell_filled, tell_json

    if output is not None:
        check_output(output, _FILES)
    if aggregated is not None:
        check_output(aggregated, (".json",))
        if len(runs) > 1:
            raise Refused("an aggregated file is of one run: name one, and write a file for each")
    gathered, words = read(runs, tasks, invalid), words_of(metric or [])
    every = metrics_of(gathered, words, every=True)
    definitions, choose = definitions_of(gathered.found), part_columns if parts else columns_of
    columns = choose(gathered, metrics_of(gathered, words, all_metrics), definitions)
    table = (by_part if parts else by_step)(gathered, columns)
    notes = legend(table, gathered, columns, definitions)
    if aggregated is not None:
        in_full = choose(gathered, every, definitions)
        write_file(aggregated, aggregated_content(in_full, places_of(gathered), tokens_at(gathered)))
    if output is not None:
        is_page = output.suffix == ".md"
        write_file(
            output, as_markdown(table, notes) if is_page else file_bytes(records_of(gathered, every), output.suffix)
        )
    if json_output:
        rows = as_rows(records_of(gathered, every))
        tell_json({"results": rows, "notes": gathered.notes, "problems": gathered.problems})
    else:
        for run, of_run in by_run(table) if sys.stdout.isatty() else [("", table)]:
            if run:
                tell(run)
            print_matrix(of_run.head, of_run.rows, of_run.fixed, range(of_run.texts, len(of_run.head)))
            tell()
        for note in notes:
            tell_filled(note)
    tell_unread(gathered)
