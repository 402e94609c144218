"""Copies of runs at other places: file://, s3://, gs://, hf://. Only what is missing travels.

tools/sync-to-hub RUN --to s3://bucket/runs        bring a run there; the same again goes on, or moves nothing
tools/sync-to-hub --all                            everything that the runs' own YAMLs ask for
tools/sync-to-hub pull RUN --from s3://bucket/runs --steps 3000 --weights-only
tools/sync-to-hub auth s3://bucket                 where the credentials come from
"""

import re
import time
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import TrainyardError


class PushByDefault(TyperGroup):
    """Without the name of a command, the words are those of `push`."""

    def parse_args(self, ctx: "typer.Context", args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["push", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=PushByDefault, help=__doc__, add_completion=False, no_args_is_help=True, rich_markup_mode=None)

What = Annotated[str, typer.Option(help="Parts of a run: checkpoints,logs,tensorboard,evals,exports.")]
Steps = Annotated[str, typer.Option(help="1000, 1000:5000, 1000:, or several with commas.")]
WeightsOnly = Annotated[bool, typer.Option("--weights-only", help="Checkpoints without the optimizer's state.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Move nothing; say what would move.")]
Parallel = Annotated[int, typer.Option(min=1, help="Files at once.")]
Bandwidth = Annotated[str, typer.Option(metavar="RATE", help="Bytes per second at most: 50M.")]
Tries = Annotated[int, typer.Option(min=1, help="Of each request, with growing pauses.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs.")]


@app.command("push")
def push_command(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="A run's name, or a part that no other has.")] = "",
    to: Annotated[str, typer.Option(help="Address; the run's folder is made in it, or where it says {run}.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="What all runs' YAMLs ask for, or RUN's.")] = False,
    what: What = "checkpoints",
    weights_only: WeightsOnly = False,
    steps: Steps = "",
    every: Annotated[int | None, typer.Option(min=1, help="Steps that divide by it.")] = None,
    pattern: Annotated[str, typer.Option(help="Of names: 'step-*', 'logs/*.log'.")] = "",
    dry_run: DryRun = False,
    watch: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Look again so often, until the run has finished.")
    ] = None,
    delete_local: Annotated[
        bool,
        typer.Option("--delete-local-after-verify", help="Remove checkpoints here once their copies were read whole."),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace another artefact in a place, and every file that is damaged there."),
    ] = False,
    tar_below: Annotated[str, typer.Option(metavar="SIZE", help="Smaller files travel as one tar.")] = "",
    parallel: Parallel = 4,
    bandwidth: Bandwidth = "",
    tries: Tries = 5,
    json_output: AsJson = False,
) -> None:
    """Bring a run's artefacts to a location."""
    from megatron_patches.artefacts.storage.transfer import Options
    from tools.commands.sync_to_hub.items import Choice, parse_what
    from tools.commands.sync_to_hub.progress import metered, summarize
    from tools.commands.sync_to_hub.push import Request, lines_of

    if everything == bool(to):
        raise TrainyardError("say where to: --to ADDRESS with a RUN, or --all for what the runs' YAMLs ask for")
    if to and not run:
        raise TrainyardError(f"name the run that is to be brought to {to}; `tools/inventory list` shows all")
    choice = Choice(parse_what(what), weights_only, steps, every, pattern)
    while True:
        with metered(parse_size(bandwidth, "--bandwidth")) as meter:
            below = int(parse_size(tar_below, "--tar-below") or 0)
            options = Options(parallel, tries, replace, below, meter=meter)
            request = Request(run, to, choice, options, dry_run, delete_local)
            lines, has_ended = lines_of(request, CHECKOUT, runs_root())
            went_well = summarize(lines, json_output)
        if watch is None or has_ended():
            break
        time.sleep(watch)
    if not went_well:
        raise typer.Exit(1)


@app.command("pull")
def pull_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's full name.")],
    source: Annotated[str, typer.Option("--from", help="Address that it was brought to.")],
    into: Annotated[
        Path | None, typer.Option(help=r"Folder of runs that its folder is made in \[default: the runs' root].")
    ] = None,
    what: What = "checkpoints",
    weights_only: WeightsOnly = False,
    steps: Steps = "",
    allow_invalid: Annotated[bool, typer.Option("--allow-invalid", help="Also what was marked invalid.")] = False,
    dry_run: DryRun = False,
    parallel: Parallel = 4,
    bandwidth: Bandwidth = "",
    tries: Tries = 5,
    json_output: AsJson = False,
) -> None:
    """Bring a run's artefacts back from a location; a whole folder appears, or none."""
    from megatron_patches.artefacts.location import run_location
    from megatron_patches.artefacts.storage.transfer import Options
    from tools.commands.sync_to_hub.items import parse_what
    from tools.commands.sync_to_hub.progress import metered, summarize
    from tools.commands.sync_to_hub.pull import Pull, pull

    with metered(parse_size(bandwidth, "--bandwidth")) as meter:
        task = Pull(
            run_location(source, run), (into or runs_root()) / run, parse_what(what), weights_only, steps,
            allow_invalid, dry_run, Options(parallel, tries, meter=meter),
        )  # fmt: skip
        went_well = summarize(pull(task), json_output)
    if not went_well:
        raise typer.Exit(1)


@app.command("auth")
def auth_command(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="s3://bucket, hf://org/repo ...")],
) -> None:
    """Say where the client of a location finds its credentials, and whether they open it; they are never shown."""
    from megatron_patches.artefacts.location import parse_location
    from megatron_patches.artefacts.storage.store import TransientFailure, open_store

    location = parse_location(address.replace("/{run}", ""))
    try:
        print(f"{location}: {open_store(location).credentials()}")
    except TransientFailure as failure:
        raise TrainyardError(f"{failure}: the location does not answer; try again, or look at the connection") from None


@app.command("bench")
def bench_command(
    folder: Annotated[Path, typer.Argument(help="Where the files are made and copied; they are removed again.")],
    size: Annotated[str, typer.Option(help="Of all large files together.")] = "2G",
    files: Annotated[int, typer.Option(min=1, help="Number of small files of the second measurement.")] = 10_000,
) -> None:
    """Measure a sync to a local folder beside cp and sha256 of the same files, and a second sync of many files."""
    from tools.commands.sync_to_hub.bench import bench

    bench(folder, int(parse_size(size, "--size") or 0), files)


def parse_size(text: str, option: str) -> float | None:
    """Bytes of a size such as 50M or 2G; None for an empty text.

    Raises:
        TrainyardError: it is not formed so, or is nothing.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)B?", text)
    number = float(found[1]) * 1000 ** " kMGT".index((found[2] or " ").replace("K", "k")) if found else 0
    if number <= 0:
        raise TrainyardError(f"{option} {text}: give a size such as 500k, 50M or 2G")
    return number
