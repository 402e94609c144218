"""`tools/evals compare`: two checkpoints on the tasks that both were evaluated on."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="RUN@STEP, RUN@best, RUN (its latest evaluated step), or a folder runs/NAME/evals/step-...",
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The same. Differences are B minus A.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL[,LABEL...]",
            help="Only these results; may be given several times. Example: hellaswag,mmlu.5-shot",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help=r"Compare this one \[default: acc_norm, else acc, an exact match, a loss]. Example: acc"),
    ] = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items",
            help="Take items as independent also where they are in clusters, such as subjects: what is shown is then "
            "true of these clusters alone. Needed where there are 2 to 9 clusters.",
        ),
    ] = False,
    unpaired: Annotated[
        bool,
        typer.Option(
            "--unpaired",
            help="Where items were not kept or are not the same, compare by standard errors alone; it sees less.",
        ),
    ] = False,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Chance of calling a difference where there is none, two-sided. Example: 0.01",
        ),
    ] = 0.05,
    invalid: Annotated[bool, typer.Option("--invalid", help="Take evaluations that are marked invalid too.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row for each task to this file. Example: compared.csv")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Which of two checkpoints is better, item by item.

    Answers to the same item are paired, which shows differences that two standard errors hide. Accuracies are compared
    by McNemar's test (mid-p), other numbers by t; where items are in 10 clusters or more, such as subjects, by the
    signs of the clusters' differences (a studentised wild bootstrap). p values are adjusted for the number of tasks
    (Holm).

    Example: tools/evals compare tr3d-1B3-more-warmup@90000 tr3m-1B3-pile@90000 --tasks hellaswag,mmlu
    """
    from megatron_patches.atomic_files import write_atomically
    from megatron_patches.errors import TrainyardError
    from megatron_patches.evaluation.tasks.extra import refuse_without
    from megatron_patches.foreign.printable import printable
    from tools.commands.evals.comparing.compared_sides import find_side
    from tools.commands.evals.comparing.comparison import Choices, compare_evaluations
    from tools.commands.evals.comparing.comparison_tables import as_csv, as_json, legend, table, titles
    from tools.tables import print_table
    from tools.terminal import remark, tell, tell_filled, tell_json

    if csv is not None and (csv.is_dir() or not csv.absolute().parent.is_dir()):
        raise TrainyardError(f"{printable(csv)} cannot be written: name a file in a folder that exists")
    refuse_without("comparisons", scipy="scipy")
    labels = [label for text in tasks or () for label in text.split(",") if label]
    sides = find_side(first, invalid), find_side(second, invalid)
    choices = Choices(labels, metric, items, unpaired, alpha)
    rows = compare_evaluations(sides[0].evaluation, sides[1].evaluation, choices)
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
        write_atomically(csv, as_csv(*sides, rows).encode())
        remark(f"written: {csv}")
