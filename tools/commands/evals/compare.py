"""`tools/evals compare`: two checkpoints on the tasks that both were evaluated on."""

from pathlib import Path
from typing import Annotated

import typer

from tools.commands.evals.asked_results import write_file


def compare_command(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="RUN@STEP, RUN@best, RUN (its latest evaluated step), or a folder runs/NAME/evals/step-...",
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Likewise. Differences are B minus A.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL[,LABEL...]",
            help="Compare only these results; may be given several times. Example: hellaswag,mmlu.5-shot",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help=r"Compare by this metric \[default: acc_norm, else acc, an exact match, a loss]. Example: acc"
        ),
    ] = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items",
            help="Treat items in clusters, such as subjects, as independent: the result then holds for these clusters "
            "alone. Needed where there are 2 to 9 clusters.",
        ),
    ] = False,
    unpaired: Annotated[
        bool,
        typer.Option(
            "--unpaired",
            help="Compare by standard errors alone where items were not kept or differ. This detects only larger "
            "differences.",
        ),
    ] = False,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Significance level: the chance of reporting a difference where there is none. Example: 0.01",
        ),
    ] = 0.05,
    invalid: Annotated[bool, typer.Option("--invalid", help="Accept evaluations that are marked invalid.")] = False,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a row for each task to this .csv file. Example: compared.csv"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Compare two checkpoints item by item, and tell which is better.

    Answers to the same item are paired, which shows differences that two standard errors hide. Accuracies are compared
    by McNemar's test (mid-p), other numbers by t; where items are in 10 clusters or more, such as subjects, by the
    signs of the clusters' differences (a studentised wild bootstrap). p values are adjusted for the number of tasks
    (Holm).

    Example: tools/evals compare tr3d-1B3-more-warmup@90000 tr3m-1B3-pile@90000 --tasks hellaswag,mmlu
    """
    from megatron_patches.evaluation.tasks.extra import refuse_without
    from tools.commands.evals.comparing.comparison import Choices, compare_evaluations, left_out
    from tools.commands.evals.comparing.comparison_tables import as_csv, as_json, legend, table, titles
    from tools.evaluation_views.choice import words_of
    from tools.evaluation_views.evaluated_step import find_evaluated_step
    from tools.evaluation_views.outputs import check_output
    from tools.tables import print_table
    from tools.terminal import remark, tell, tell_filled, tell_json

    if csv is not None:
        check_output(csv, (".csv",))
    refuse_without("comparisons", scipy="scipy")
    labels = words_of(tasks or [])
    sides = find_evaluated_step(first, invalid), find_evaluated_step(second, invalid)
    choices = Choices(labels, metric, items, unpaired, alpha)
    rows = compare_evaluations(sides[0].evaluation, sides[1].evaluation, choices)
    if losses := left_out(sides[0].evaluation, sides[1].evaluation, choices):
        remark(f"left out, as losses keep no items that could be paired: {', '.join(losses)}; --unpaired takes them")
    if json_output:
        tell_json(as_json(*sides, rows))
    else:
        for line in titles(*sides):
            tell(line)
        tell()
        print_table(*table(rows))
        tell()
        for line in legend(rows):
            tell_filled(line)
    if csv is not None:
        write_file(csv, as_csv(*sides, rows).encode())
