"""Where a run keeps what it makes: `$TRAINYARD_RUNS/<name>/`, readable whatever instant a process is killed at."""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.manifest import build_manifest, manifest_bytes
from megatron_patches.artefacts.run_folder import CONFIG, STOPPED, RunFolder
from megatron_patches.atomic_files import create_once, fsync_folder, temporary_path, write_atomically
from megatron_patches.checkout import runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import to_yaml


@dataclass(frozen=True)
class Launch:
    """One start of a run: a folder `launches/<id>` of its run directory."""

    directory: Path

    @property
    def id(self) -> str:
        """Number of the launch: 0001 is the first."""
        return self.directory.name

    @property
    def run(self) -> RunFolder:
        """The run that was launched."""
        return RunFolder(self.directory.parents[1])

    def newest(self) -> str:
        """Id of the run's newest launch: this one, unless another was started since."""
        return max((path.name for path in self.directory.parent.iterdir() if path.name.isdecimal()), key=int)

    @property
    def config(self) -> Path:
        """The resolved configuration of this launch."""
        return self.directory / CONFIG

    @property
    def stopped(self) -> Path:
        """A file that exists when the launch saved itself before its end, to be continued."""
        return self.directory / STOPPED

    @property
    def trace(self) -> Path:
        """The profile of some of its steps, for Perfetto, where one was asked for."""
        return self.directory / "trace-rank0.json"


def run_directory(config: RunConfig) -> RunFolder:
    """The folder of a run, whether it exists or not."""
    return RunFolder(runs_root() / config.name)


def start_launch(config: RunConfig) -> Launch:
    """Makes the next launch's folder, with the configuration in it, and the run's manifest at the first launch.

    A launch folder appears by one rename, so it never lacks its configuration, and two launches that start at once
    get different numbers.

    Raises:
        TrainyardError: the runs' folder cannot be written to.
    """
    run = run_directory(config)
    try:
        run.launches.mkdir(parents=True, exist_ok=True)
        _create_manifest(run, config)
        launch = _number_launch(run, to_yaml(config).encode())
        write_atomically(run.config, launch.config.read_bytes())
    except OSError as error:
        raise TrainyardError(
            f"{run.path}: cannot be written to ({error}); export TRAINYARD_RUNS=FOLDER names another place for runs"
        ) from error
    return launch


def _number_launch(run: RunFolder, resolved: bytes) -> Launch:
    folder = temporary_path(run.launches / "launch")
    folder.mkdir()
    try:
        write_atomically(folder / CONFIG, resolved)
        taken = [int(path.name) for path in run.launches.iterdir() if path.name.isdecimal()]
        number = max(taken, default=0) + 1
        while not _rename_folder(folder, run.launches / f"{number:04d}"):
            number += 1
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    fsync_folder(run.launches)
    return Launch(run.launches / f"{number:04d}")


def _rename_folder(folder: Path, target: Path) -> bool:
    """False where another launch has the name: a rename does not replace a folder that has files in it."""
    try:
        folder.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


def _create_manifest(run: RunFolder, config: RunConfig) -> None:
    if run.manifest.exists():
        return
    # eight hexadecimal digits, the form of the ids that Weights & Biases makes itself
    facts = {"run": config.name, "family": config.family, "wandb_id": secrets.token_hex(4)}
    # of two launches that start at once, one decides the id for both
    create_once(run.manifest, manifest_bytes(build_manifest("run", files=[], facts=facts)))
