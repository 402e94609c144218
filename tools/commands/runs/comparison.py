"""`tools/runs compare`: runs found and read, compared, printed, drawn and written to files."""

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.sizes import counted
from tools.commands.runs.compared_runs import ComparedRun, find_compared
from tools.commands.runs.comparison_tables import (
    as_json,
    chosen_metrics,
    course_table,
    loss_legend,
    loss_table,
    point_legend,
    point_table,
    point_title,
    run_table,
    settings_tables,
)
from tools.run_views.comparison import Axis, Comparison, Metric, compare_histories, natural_axis
from tools.run_views.comparison_csv import as_csv
from tools.run_views.comparison_picture import as_png, draw_comparison, text_curves
from tools.run_views.history import History, read_histories
from tools.tables import print_table
from tools.terminal import remark, tell, tell_json, tell_passed_over

_COMPARED = ("training_loss", "validation_loss")
_DRAWN = (*_COMPARED, "learning_rate", "tokens_per_second")
_PLOTTED_RUNS = 6
"""more letters in one text plot hide one another"""
_PLOT_WIDTH = 80
_NUMBER = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)([KMBT]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def compare(
    asked: Sequence[str],
    checkout: Path,
    over: Axis | None,
    at: str | None,
    metrics: Sequence[str],
    source: str | None,
    window: int,
    csv: Path | None,
    png: Path | None,
    json_output: bool,
) -> bool:
    """Does what the command line asks for; whether all could be read.

    Raises:
        TrainyardError: a run is not found, a file cannot be written, the point is no number.
    """
    point = None if at is None else parse_point(at)
    compared, drawn = chosen_metrics(metrics, _COMPARED), chosen_metrics(metrics, _DRAWN)
    for file in (csv, png):
        _refuse_unwritable(file)
    runs = find_compared(asked, checkout)
    histories = read_histories([run.folder.events if run.folder else None for run in runs])
    axis = over or natural_axis(histories)
    comparison = compare_histories(histories, compared, axis=axis, at=point, source=source, window=window)
    problems = [problem for run, each in zip(runs, histories, strict=True) for problem in run.problems + each.problems]
    names = [printable(run.label) for run in runs]
    labels = [f"{run.letter} {name}" for run, name in zip(runs, names, strict=True)]
    if json_output:
        tell_json(as_json(runs, histories, comparison, problems))
    else:
        _print(runs, histories, comparison, compared, axis)
    if csv is not None:
        write_atomically(csv, as_csv(histories, names).encode())
        remark(f"written: {csv}")
    if png is not None:
        figure = draw_comparison(histories, labels, drawn, axis, comparison.source)
        write_atomically(png, as_png(figure))
        remark(f"written: {png}")
    tell_passed_over(problems, "tools/runs compare RUN... --json")
    return not problems


def parse_point(text: str) -> int:
    """A step or a number of tokens as people write it: 5000, 5_000, 1e9, 2.5B.

    Raises:
        TrainyardError: it is none.
    """
    found = _NUMBER.fullmatch(text.strip())
    number = round(float(found[1].replace("_", "").replace(",", "")) * _UNITS[found[2].upper()]) if found else 0
    if not 0 < number < 2**63:
        raise TrainyardError(f"--at {shortened(text, 40)} is no number of steps or tokens; for example 5000, 1e9, 2.5B")
    return number


def _refuse_unwritable(file: Path | None) -> None:
    if file is None:
        return
    if file.is_dir():
        raise TrainyardError(f"{printable(file)} is a folder; name a file")
    if not file.absolute().parent.is_dir():
        raise TrainyardError(f"{printable(file)} cannot be written: there is no folder {printable(file.parent)}")


def _print(
    runs: Sequence[ComparedRun],
    histories: Sequence[History],
    comparison: Comparison,
    metrics: Sequence[Metric],
    axis: Axis,
) -> None:
    print_table(*run_table(runs))
    if comparison.point is not None:
        tell()
        print_table(*course_table(runs, comparison), numbers=range(1, 7))
        tell()
        head, rows = loss_table(runs, comparison)
        print_table(head, rows, numbers=range(1, len(head)))
        for line in loss_legend(comparison):
            tell(line)
        tell()
        tell(f"{point_title(runs, comparison)}:")
        head, rows = point_table(runs, comparison, metrics)
        print_table(head, rows, numbers=range(1, len(head)))
        for line in point_legend(runs, comparison, metrics):
            tell(line)
        _print_plot(runs, histories, comparison, metrics[0], axis)
    if len(runs) > 1:
        tell()
        _print_settings(runs)


def _print_plot(
    runs: Sequence[ComparedRun],
    histories: Sequence[History],
    comparison: Comparison,
    metric: Metric,
    axis: Axis,
) -> None:
    if sum(found.steps is not None for found in comparison.reached) > _PLOTTED_RUNS:
        return
    letters = [run.letter for run in runs]
    width = min(_PLOT_WIDTH, shutil.get_terminal_size().columns)
    if lines := text_curves(histories, letters, metric, axis, comparison.source, width):
        tell()
        tell("\n".join(lines), layout=True)


def _print_settings(runs: Sequence[ComparedRun]) -> None:
    known = [run for run in runs if run.settings is not None]
    if len(known) < 2:
        tell("settings: those of fewer than two runs are known")
        return
    tables = settings_tables(runs, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    if not tables:
        tell(f"settings: the same in {counted(len(known), 'run')}")
    for number, (head, rows) in enumerate(tables):
        if number:
            tell()
        print_table(head, rows)
