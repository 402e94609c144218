"""What one call of `tools/sync-to-hub` is to do: the tasks, and whether there will be more to do later."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_patches.artefacts.annotations import Standing
from megatron_patches.artefacts.inventory.names import resolve_run
from megatron_patches.artefacts.location import run_location
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.artefacts.storage.store import StorageUnavailable
from megatron_patches.artefacts.storage.transfer import Options
from megatron_patches.errors import Missing, TrainyardError
from tools.commands.sync_to_hub.items import Choice
from tools.commands.sync_to_hub.run import Line, Task, push, read_back, remove_copied
from tools.run_views.state import derive_state


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    run: str
    to: str
    """empty means what the YAMLs ask for"""
    choice: Choice
    options: Options
    retries: Retries
    dry_run: bool
    delete_local: bool


def lines_of(request: Request, checkout: Path, runs: Path) -> tuple[Iterator[Line], Callable[[], bool]]:
    """A line for each artefact as it is done, and whether all runs that were looked at had finished by then.

    Raises:
        TrainyardError: the run is unknown or ambiguous, or the location cannot be used.
    """
    if not request.run and not runs.is_dir():
        raise Missing(f"{runs}, where runs are looked for, is no folder; export TRAINYARD_RUNS=FOLDER names another")
    known = sorted(path.name for path in runs.glob("*/")) if runs.is_dir() else []
    problems: list[str] = []
    names = [resolve_run(request.run, known)] if request.run else known
    had_ended = all(_has_ended(runs / name) for name in names)  # before anything is copied: what comes later is due
    if request.to:
        location = run_location(request.to, names[0])
        choice = replace(request.choice, passed_over=[])
        tasks = [Task(runs / names[0], location, choice, request.options, request.retries)]
    else:
        from tools.commands.sync_to_hub.due import due_tasks

        asked = names if request.run else []
        tasks, problems = due_tasks(checkout, runs, asked, request.options, request.retries)
        if request.run and not tasks and not problems:
            raise TrainyardError(f"{names[0]} names no storage.locations in its YAML; give --to ADDRESS")
        if not tasks:
            raise TrainyardError("\n".join([*problems, _nothing_due(runs, bool(problems))]))
    for task in tasks:
        task.dry_run = request.dry_run
    return _all_lines(tasks, problems, request.delete_local and not request.dry_run), lambda: had_ended


def _nothing_due(runs: Path, wrong: bool) -> str:
    of_them = f"no run in {runs} that can be read" if wrong else f"no run in {runs}"
    return (
        f"{of_them} names storage.locations in its YAML, so there is nothing to bring anywhere; add them, or give --to"
    )


def _all_lines(tasks: list[Task], problems: list[str], delete_local: bool) -> Iterator[Line]:
    unreached: set[Path] = set()
    for problem in problems:
        yield Line("", "", "", "passed over", problem=problem, lasting=True)
    for task in tasks:
        try:
            yield from push(task)
        except TrainyardError as error:
            if len(tasks) == 1:
                raise
            unreached.add(task.run_folder)
            lasting = not isinstance(error, StorageUnavailable)
            yield Line(task.run_folder.name, "", str(task.location), "failed", problem=str(error), lasting=lasting)
    if not delete_local:
        return
    reached = [task for task in tasks if task.run_folder not in unreached]
    for task in reached:
        yield from read_back(task)
    for task in reached:  # behind all that was read: what goes to two locations is here until it is whole at both
        failed = (other.failed for other in reached if other.run_folder == task.run_folder)
        yield from remove_copied(task, set().union(*failed))


def _has_ended(run_folder: Path) -> bool:
    try:
        return derive_state(run_folder, Standing(), {}).word == "finished"
    except (TrainyardError, OSError):
        return False  # of a run that cannot be read nobody knows; what is wrong with it, the copying says
