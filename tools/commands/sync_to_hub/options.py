"""The options of `push` and `pull`, in groups: which run, what of it, what is done, and how it travels.

What they are turned into is imported late, so that `--help` starts without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_patches.sizes import parse_size

if TYPE_CHECKING:
    from megatron_patches.artefacts.storage.meter import Meter
    from megatron_patches.artefacts.storage.retrying import Retries
    from megatron_patches.artefacts.storage.transfer import Options
    from tools.commands.sync_to_hub.items import Choice

DryRun = Annotated[bool, typer.Option("--dry-run", help="Move nothing; say what would move.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs.")]


@dataclass(frozen=True)
class Selection:
    """Which parts of a run."""

    what: Annotated[str, typer.Option(help="Parts of a run: checkpoints,logs,tensorboard,evals,exports.")] = (
        "checkpoints"
    )
    weights_only: Annotated[bool, typer.Option("--weights-only", help="Checkpoints without the optimizer's state.")] = (
        False
    )
    steps: Annotated[str, typer.Option(help="1000, 1000:5000, 1000:, or several with commas.")] = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts, one by one.

        Raises:
            TrainyardError: one of them is unknown.
        """
        from tools.commands.sync_to_hub.items import parse_what

        return parse_what(self.what)


@dataclass(frozen=True)
class PushSelection(Selection):
    """Which of a run's artefacts and files."""

    every: Annotated[int | None, typer.Option(min=1, help="Steps that divide by it.")] = None
    pattern: Annotated[str, typer.Option(help="Of names: 'step-*', 'logs/*.log'.")] = ""

    @property
    def choice(self) -> "Choice":
        """What is chosen of a run.

        Raises:
            TrainyardError: a part is unknown, or the steps are not formed as they must be.
        """
        from tools.commands.sync_to_hub.items import Choice

        return Choice(self.parts, self.weights_only, self.steps, self.every, self.pattern)


@dataclass(frozen=True)
class Destination:
    """Which run is copied, and to where."""

    run: Annotated[str, typer.Argument(metavar="[RUN]", help="A run's name, or a part that no other has.")] = ""
    to: Annotated[str, typer.Option(help="Address; the run's folder is made in it, or where it says {run}.")] = ""
    everything: Annotated[bool, typer.Option("--all", help="What all runs' YAMLs ask for, or RUN's.")] = False
    revision: Annotated[
        str,
        typer.Option(
            metavar="BRANCH",
            help="Branch of a repository of the hub that gets one artefact's files at its root, for "
            "from_pretrained(..., revision=BRANCH); it is made where there is none. Example: tools/sync-to-hub push "
            "EXPORT_FOLDER --to hf://org/name --revision step-1000.",
        ),
    ] = ""


@dataclass(frozen=True)
class PullSource:
    """Which run is fetched, from where, and where to."""

    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's full name.")]
    address: Annotated[str, typer.Option("--from", help="Address that it was brought to.")]
    into: Annotated[
        Path | None, typer.Option(help="Folder of runs that its folder is made in; unset: the runs' root.")
    ] = None
    revision: Annotated[
        str,
        typer.Option(
            metavar="BRANCH",
            help="Branch of a repository of the hub with one artefact at its root, which comes into the folder that "
            "stands in RUN's place. Example: tools/sync-to-hub pull FOLDER --from hf://org/name --revision step-1000.",
        ),
    ] = ""


@dataclass(frozen=True)
class PushAction:
    """What a push does, and when it ends."""

    dry_run: DryRun = False
    watch: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Look again so often, until the run has finished.")
    ] = None
    delete_local: Annotated[
        bool,
        typer.Option("--delete-local-after-verify", help="Remove checkpoints here once their copies were read whole."),
    ] = False


@dataclass(frozen=True)
class Transport:
    """How files travel."""

    parallel: Annotated[int, typer.Option(min=1, help="Files at once.")] = 4
    bandwidth: Annotated[str, typer.Option(metavar="RATE", help="Bytes per second at most: 50M.")] = ""
    tries: Annotated[int, typer.Option(min=1, help="Of each request, with growing pauses.")] = 5

    @property
    def retries(self) -> "Retries":
        """How often a request is tried."""
        from megatron_patches.artefacts.storage.retrying import Retries

        return Retries(self.tries)

    @contextmanager
    def metered(self) -> Iterator["Options"]:
        """How to copy, with a meter that keeps to the bandwidth and draws a bar on a terminal.

        Raises:
            TrainyardError: a size is not formed as it must be.
        """
        from tools.commands.sync_to_hub.progress import metered

        with metered(parse_size(self.bandwidth, "--bandwidth")) as meter:
            yield self._options(meter)

    def _options(self, meter: "Meter") -> "Options":
        from megatron_patches.artefacts.storage.transfer import Options

        return Options(self.parallel, meter=meter)


@dataclass(frozen=True)
class PushTransport(Transport):
    """How files travel to a location, and over what."""

    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace another artefact of the same name, and every file that is damaged there."
        ),
    ] = False
    tar_below: Annotated[str, typer.Option(metavar="SIZE", help="Smaller files travel as one tar.")] = ""

    def _options(self, meter: "Meter") -> "Options":
        from megatron_patches.artefacts.storage.transfer import Options

        return Options(self.parallel, self.replace, int(parse_size(self.tar_below, "--tar-below") or 0), meter)
