"""The runs under train/: finding them, and what there is to say of each in a line."""

import difflib
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_patches.configuration.layers import base_of
from megatron_patches.errors import TrainyardError
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.reading import load_run
from tools.run_files.name import order


@dataclass(frozen=True)
class RunLine:
    """A run's line in the table."""

    run: str
    family: str
    baseline: str | None
    parameters: int
    tokens: int
    why: str


def run_files(checkout: Path) -> list[Path]:
    """The YAML files of all runs, by family number and name."""
    return sorted((checkout / "train").glob("*/*.yaml"), key=lambda path: (order(path.parent), order(path)))


def find_run(text: str, checkout: Path) -> Path:
    """The file of a run given by its name or its path.

    Raises:
        TrainyardError: there is no such run; the nearest name is offered.
    """
    for path in (Path(text), checkout / text):
        if path.suffix == ".yaml" and path.is_file():
            return path
    files = {path.stem: path for path in run_files(checkout)}
    if text in files:
        return files[text]
    nearest = difflib.get_close_matches(text, list(files), n=1, cutoff=0.0)
    offer = f"; nearest: {nearest[0]}" if nearest else ""
    raise TrainyardError(f"there is no run {text}{offer}; `tools/runs list` shows all, a path to a YAML works too")


def describe_line(path: Path) -> RunLine:
    """The line of one run.

    Raises:
        TrainyardError: its configuration does not load.
    """
    config = load_run(path)
    base = base_of(path)
    return RunLine(
        run=config.name,
        family=config.family,
        baseline=base.stem if base else None,
        parameters=count_parameters(config.model, config.lengths).total,
        tokens=config.timetable.end.tokens,
        why=config.why,
    )


def describe_all(checkout: Path) -> tuple[list[RunLine], list[str]]:
    """The lines of all runs that load, and what is wrong with the others."""
    lines, problems = [], []
    for path in run_files(checkout):
        try:
            lines.append(describe_line(path))
        except TrainyardError as error:
            problems.append(str(error))
    return lines, problems


def as_json(lines: list[RunLine]) -> list[dict[str, str | int | None]]:
    """The table for other programs; numbers are exact."""
    return [asdict(line) for line in lines]
