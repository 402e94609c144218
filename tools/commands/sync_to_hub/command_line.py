"""Copies of runs at other places: file://, s3://, gs://, hf://. Only what is missing travels.

\b
tools/sync-to-hub RUN --to s3://bucket/runs        bring a run there; the same again goes on, or moves nothing
tools/sync-to-hub --all                            everything that the runs' own YAMLs ask for
tools/sync-to-hub pull RUN --from s3://bucket/runs --steps 3000 --weights-only
tools/sync-to-hub push EXPORT_FOLDER --to hf://org/name --revision step-1000
tools/sync-to-hub auth s3://bucket                 where the credentials come from
"""

import time
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.credentials import holds_credentials
from megatron_patches.sizes import parse_size
from tools.commands.sync_to_hub.options import (
    AsJson,
    Destination,
    DryRun,
    PullSource,
    PushAction,
    PushSelection,
    PushTransport,
    Selection,
    Transport,
)
from tools.option_groups import takes_groups


def _value(argument: str) -> str:
    return argument.partition("=")[2] if argument.startswith("--") else argument


class PushByDefault(TyperGroup):
    """Without the name of a command, the arguments are those of `push`."""

    def parse_args(self, ctx: "typer.Context", args: list[str]) -> list[str]:  # type: ignore[override]
        # before anything quotes them: an address with credentials reaches no message of the parser
        if any(("://" in arg or (":" in arg and "@" in arg)) and holds_credentials(_value(arg)) for arg in args):
            raise TrainyardError(
                "an argument is an address that seems to hold credentials; it is not shown, and nothing was done. The "
                "clients find credentials in their own places, and `tools/sync-to-hub auth` says where"
            )
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["push", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=PushByDefault, help=__doc__, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.command("push")
@takes_groups
def push_command(
    destination: Destination,
    selection: PushSelection,
    action: PushAction,
    transport: PushTransport,
    json_output: AsJson = False,
) -> None:
    """Bring a run's artefacts to a location."""
    from tools.commands.sync_to_hub.progress import summarize
    from tools.commands.sync_to_hub.push import Request, lines_of

    run, to = destination.run, destination.to
    if destination.revision:
        _push_revision(destination, selection, action, transport, json_output)
        return
    if destination.everything == bool(to):
        raise TrainyardError("say where to: --to ADDRESS with a RUN, or --all for what the runs' YAMLs ask for")
    if to and not run:
        raise TrainyardError(f"name the run that is to be brought to {to}; `tools/inventory list` shows all")
    choice = selection.choice
    while True:
        with transport.metered() as options:
            request = Request(run, to, choice, options, transport.retries, action.dry_run, action.delete_local)
            lines, has_ended = lines_of(request, CHECKOUT, runs_root())
            code = summarize(lines, json_output)
        if action.watch is None or has_ended():
            break
        time.sleep(action.watch)
    if code:
        raise typer.Exit(code)


@app.command("pull")
@takes_groups
def pull_command(
    source: PullSource,
    selection: Selection,
    *,
    allow_invalid: Annotated[bool, typer.Option("--allow-invalid", help="Also what was marked invalid.")] = False,
    dry_run: DryRun = False,
    transport: Transport,
    json_output: AsJson = False,
) -> None:
    """Bring a run's artefacts back from a location; a whole folder appears, or none."""
    from megatron_patches.artefacts.location import run_location
    from megatron_patches.foreign.names import check_name
    from tools.commands.sync_to_hub.progress import summarize
    from tools.commands.sync_to_hub.pull import Pull, pull

    if source.revision:
        _pull_revision(source, selection, allow_invalid, dry_run, transport, json_output)
        return
    check_name(source.run, "a run (RUN)")
    with transport.metered() as options:
        task = Pull(
            location=run_location(source.address, source.run),
            run_folder=(source.into or runs_root()) / source.run,
            what=selection.parts,
            weights_only=selection.weights_only,
            steps=selection.steps,
            allow_invalid=allow_invalid,
            dry_run=dry_run,
            options=options,
            retries=transport.retries,
        )
        code = summarize(pull(task), json_output)
    if code:
        raise typer.Exit(code)


def _push_revision(
    destination: Destination,
    selection: PushSelection,
    action: PushAction,
    transport: PushTransport,
    json_output: bool,
) -> None:
    from tools.commands.sync_to_hub.progress import summarize
    from tools.commands.sync_to_hub.revision import RevisionPush, chosen_folder, push_revision

    parts = selection != PushSelection() or destination.everything or transport.tar_below
    if parts or action.watch is not None or action.delete_local:
        raise TrainyardError(
            "--revision brings one artefact, whole, to the hub once; of the other options it takes --dry-run, "
            "--replace, --parallel, --bandwidth, --tries and --json"
        )
    if not (destination.to and destination.run):
        raise TrainyardError("name what is brought to the revision, and where: push FOLDER --to hf://org/name")
    folder = chosen_folder(destination.run)
    with transport.metered() as options:
        task = RevisionPush(folder, destination.to, destination.revision, options, transport.retries, action.dry_run)
        code = summarize([push_revision(task)], json_output)
    if code:
        raise typer.Exit(code)


def _pull_revision(
    source: PullSource,
    selection: Selection,
    allow_invalid: bool,
    dry_run: bool,
    transport: Transport,
    json_output: bool,
) -> None:
    from tools.commands.sync_to_hub.progress import summarize
    from tools.commands.sync_to_hub.revision import RevisionPull, pull_revision

    if selection != Selection() or source.into is not None:
        raise TrainyardError(
            "--revision fetches one artefact, whole, into the folder that stands in RUN's place; leave out --what, "
            "--weights-only, --steps and --into"
        )
    with transport.metered() as options:
        task = RevisionPull(
            Path(source.run), source.address, source.revision, options, transport.retries, dry_run, allow_invalid
        )
        code = summarize([pull_revision(task)], json_output)
    if code:
        raise typer.Exit(code)


@app.command("auth")
def auth_command(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="s3://bucket, hf://org/repo ...")],
) -> None:
    """Say where the client of a location finds its credentials, and whether they open it; they are never shown."""
    from megatron_patches.artefacts.location import RUN, parse_location
    from megatron_patches.artefacts.storage.open import open_store
    from megatron_patches.artefacts.storage.store import TransientFailure

    location = parse_location(address)
    try:
        print(f"{location}: {open_store(parse_location(address.replace(RUN, 'run'))).credentials()}")
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
