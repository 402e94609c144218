"""Where a run keeps what it makes: `$TRAINYARD_RUNS/<name>/`, readable whatever instant a process is killed at."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.text_sources.facts import TextPreparation
from megatron_patches.artefacts.manifest import build_manifest, manifest_bytes
from megatron_patches.artefacts.run_folder import CONFIG, STOPPED, RunFolder, rehearsal_of
from megatron_patches.atomic_files import create_once, write_atomically
from megatron_patches.checkout import runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.ownership import Former, claim_launch
from megatron_patches.run.reading import to_yaml

TEXT = "text"
"""folder, in a run's own, of what launches find out of its raw text, and of what they hold out of it"""


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


def text_preparation(config: RunConfig) -> TextPreparation:
    """What a run wants of its text sources before it trains, and where that is kept; a rehearsal takes the run's."""
    name = rehearsal_of(config.name) or config.name
    return TextPreparation(runs_root() / name / TEXT, config.evaluation.samples if config.evaluation else 0)


def start_launch(config: RunConfig, owner: Mapping[str, Any] | None = None, former: Former | None = None) -> Launch:
    """Makes the next launch's folder, with the configuration in it, and the run's manifest at the first launch.

    A launch folder appears by one rename, so it never lacks its configuration, and of two launches that start at once
    one is refused.

    Args:
        owner: who keeps the launch's heartbeat (`ownership.claim_launch`); None where no other process may start the
            run meanwhile.
        former: the newest launch, found over or dead a moment ago.

    Raises:
        Refused: a launch of the run is at work.
        TrainyardError: the runs' folder cannot be written to.
    """
    run = run_directory(config)
    try:
        run.launches.mkdir(parents=True, exist_ok=True)
        _create_manifest(run, config)
        launch = Launch(claim_launch(run, {CONFIG: to_yaml(config).encode()}, owner, former))
        write_atomically(run.config, launch.config.read_bytes())
    except OSError as error:
        raise TrainyardError(
            f"{run.path}: cannot be written to ({error}); export TRAINYARD_RUNS=FOLDER names another place for runs"
        ) from error
    return launch


def _create_manifest(run: RunFolder, config: RunConfig) -> None:
    if run.manifest.exists():
        return
    # eight hexadecimal digits, the form of the ids that Weights & Biases makes itself
    facts = {"run": config.name, "family": config.family, "wandb_id": secrets.token_hex(4)}
    # of two launches that start at once, one decides the id for both
    create_once(run.manifest, manifest_bytes(build_manifest("run", files=[], facts=facts)))
