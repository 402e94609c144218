"""`tools/evals plot`: learning curves, as a picture or on the terminal."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tools.commands.evals.asked_results import Invalid, Runs, Tasks, read, tell_unread, write_file

_PLOT_WIDTH = 80


def plot_command(
    runs: Runs,
    tasks: Tasks = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC[,METRIC...]",
            help="A panel for each of these, as METRIC or LABEL.METRIC "
            r"\[default: of each task the first it has of acc_norm, acc, exact_match, perplexity, loss].",
        ),
    ] = None,
    x: Annotated[
        Literal["steps", "tokens"] | None,
        typer.Option("--x", help=r"Draw over these \[default: tokens for several runs that know them, else steps]."),
    ] = None,
    invalid: Invalid = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=r"Write a picture: .svg or .png \[default: plots on the terminal]."),
    ] = None,
) -> None:
    """Draw learning curves: a panel for each task, with a band of one standard error and the level of chance.

    A metric that falls as a model improves, such as a perplexity, has a logarithmic axis in the picture.

    Example: tools/evals plot tr3d-1B3-more-warmup tr3e-1B3-oscar --x tokens --output curves.svg
    """
    import shutil

    from tools.evaluation_views.choice import metrics_of, words_of
    from tools.evaluation_views.curve_picture import draw_curves
    from tools.evaluation_views.curve_text import text_panels
    from tools.evaluation_views.curves import panels_of
    from tools.evaluation_views.definitions import definitions_of
    from tools.evaluation_views.outputs import PICTURES, check_output, picture_bytes
    from tools.terminal import tell, tell_filled

    if output is not None:
        check_output(output, PICTURES)
    gathered = read(runs, tasks, invalid)
    panels = panels_of(gathered, metrics_of(gathered, words_of(metric or [])), definitions_of(gathered.found), x)
    if output is not None:
        write_file(output, picture_bytes(draw_curves(panels), output.suffix))
    else:
        tell("\n".join(text_panels(panels, min(_PLOT_WIDTH, shutil.get_terminal_size().columns))), layout=True)
    for note in panels.notes:
        tell_filled(note)
    tell_unread(gathered)
