"""`tools/evals heatmap`: parts of tasks by checkpoints, relative to a base model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tools.commands.evals.asked_results import Invalid, Tasks, read, tell_unread, write_file


def heatmap_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was launched: its name, or its directory.")],
    tasks: Tasks = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC", help=r"Show this metric \[default: the first of acc_norm, acc, exact_match ...]."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="RUN@STEP|FILE.json",
            help="Show differences to this model: an evaluated step, or the results file of lm-eval's own command line "
            r"\[default: to the level of chance].",
        ),
    ] = None,
    absolute: Annotated[bool, typer.Option("--absolute", help="Show values instead of differences.")] = False,
    sort: Annotated[
        Literal["name", "gain"],
        typer.Option(help="Order parts by name, or by their gain at the last checkpoint, the largest first."),
    ] = "name",
    x: Annotated[Literal["steps", "tokens"], typer.Option("--x", help="Name columns by steps or by tokens.")] = "steps",
    invalid: Invalid = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=r"Write a picture, .svg or .png, or the numbers, .csv \[default: on the terminal]."
        ),
    ] = None,
) -> None:
    """Draw a heat map: a row for each part of a task, such as a subject of MMLU, a column for each checkpoint.

    Differences smaller than 1.96 of their standard errors are pale and hatched, or in brackets: they show nothing.

    Example: tools/evals heatmap tr3d-1B3-more-warmup --tasks mmlu --base tr3d-1B3-more-warmup@1000 --output mmlu.svg
    """
    from megatron_patches.errors import Refused
    from tools.evaluation_views.choice import metrics_of, words_of
    from tools.evaluation_views.heat_map.base import read_base
    from tools.evaluation_views.heat_map.numbers import caption, heat_of
    from tools.evaluation_views.heat_map.picture import draw_heat
    from tools.evaluation_views.heat_map.text import heat_csv, text_heat
    from tools.evaluation_views.outputs import PICTURES, check_output, picture_bytes
    from tools.tables import print_matrix
    from tools.terminal import tell, tell_filled

    if base is not None and absolute:
        raise Refused("--base asks for differences and --absolute for none: leave out one of them")
    if output is not None:
        check_output(output, (*PICTURES, ".csv"))
    gathered = read([run], tasks, invalid)
    model = read_base(base, invalid) if base is not None else None
    heat = heat_of(gathered, metrics_of(gathered, words_of([metric] if metric else [])), model, absolute, sort)
    under = caption(heat, model, "pale" if output else "in brackets")
    if output is None:
        head, rows = text_heat(heat, x)
        tell(heat.title)
        print_matrix(head, rows, 1, range(1, len(head)))
        tell()
        for note in under:
            tell_filled(note)
    elif output.suffix == ".csv":
        write_file(output, heat_csv(heat))
    else:
        write_file(output, picture_bytes(draw_heat(heat, under, x), output.suffix))
    for note in heat.notes:
        tell_filled(note)
    tell_unread(gathered)
