"""What is due by the runs' own YAMLs: each run's `storage.locations`."""

from pathlib import Path

from megatron_patches.artefacts.annotations import Standing
from megatron_patches.artefacts.location import run_location
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.artefacts.storage.retrying import DEFAULT_RETRIES, Retries
from megatron_patches.artefacts.storage.transfer import Options
from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved, load_run
from megatron_patches.run.storage_config import LocationConfig
from tools.commands.sync_to_hub.items import Choice
from tools.commands.sync_to_hub.run import Task
from tools.run_views.state import derive_state


def due_tasks(
    checkout: Path, runs: Path, names: list[str], options: Options, retries: Retries = DEFAULT_RETRIES
) -> tuple[list[Task], list[str]]:
    """A task for each location of each launched run, and what was wrong with runs that are passed over.

    The file under train/ decides, so that a location added today holds for a run that was launched last week; of a run
    that is not there, the configuration of its last launch.
    """
    files = {path.stem: path for path in (checkout / "train").glob("*/*.yaml")}
    tasks, problems = [], []
    for name in names or sorted(path.name for path in runs.glob("*/") if not path.name.startswith(".")):
        folder = runs / name
        if not folder.is_dir():
            problems.append(f"{folder} does not exist: the run was never launched here")
            continue
        try:
            config = _config(files.get(name), folder)
            if config is not None:
                tasks += [_task(folder, location, options, retries) for location in config.storage.locations]
        except (TrainyardError, OSError) as error:
            problems.append(f"{name}: {error}")
    return tasks, problems


def _config(file: Path | None, folder: Path) -> RunConfig | None:
    if file is not None:
        return load_run(file)
    return load_resolved(folder / CONFIG) if (folder / CONFIG).is_file() else None


def _task(folder: Path, location: LocationConfig, options: Options, retries: Retries) -> Task:
    state = derive_state(folder, Standing(), {})
    last = state.step if state.word == "finished" else None
    choice = Choice(what=tuple(location.what), policy=location, last_step=last)
    return Task(folder, run_location(location.to, folder.name), choice, options, retries)
