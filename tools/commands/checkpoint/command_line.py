"""`tools/checkpoint`: look at checkpoints, compare, verify and keep them."""

from dataclasses import asdict
from pathlib import Path

import typer

from megatron_patches.atomic_files import write_atomically
from megatron_patches.foreign.credentials import refuse_credentials
from megatron_patches.foreign.printable import printable
from tools.run_files.checkpoint_reference import find_checkpoint, find_run_directory
from tools.terminal import remark, tell, tell_json, tell_passed_over

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
CHECKPOINT = typer.Argument(help="A run (its newest checkpoint), RUN@STEP, RUN@STEP/weights, or a folder.")
AS_JSON = typer.Option(False, "--json", help="For other programs; numbers are exact.")


@app.command("list")
def list_command(run: str = typer.Argument(help="A run's name, or its directory."), as_json: bool = AS_JSON) -> None:
    """The checkpoints of a run: how large, how good, pinned, read back, or visibly damaged. No tensor is read."""
    from tools.commands.checkpoint.listing import HEAD, best_line, groups_line, list_run, rows
    from tools.tables import print_table

    directory = find_run_directory(run)
    lines = list_run(directory.checkpoints)
    if as_json:
        tell_json([asdict(line) for line in lines])
        return
    print_table(HEAD, rows(lines), numbers={1, 2})
    best, problems = best_line(directory, lines)
    if best:
        remark(best)
    if groups := groups_line(lines):
        remark(groups)
    tell_passed_over(problems, "tools/inventory verify")


@app.command()
def show(
    checkpoint: str = CHECKPOINT,
    norms: bool = typer.Option(False, help="Read every tensor, and show the norm of each."),
    every_block: bool = typer.Option(False, help="Do not fold blocks that are alike."),
    as_json: bool = AS_JSON,
) -> None:
    """What a checkpoint is, and its tensors as a tree: shapes, types, norms."""
    folder = find_checkpoint(checkpoint)
    from megatron_patches.checkpoint.offline.view import view_checkpoint
    from tools.commands.checkpoint.show import as_tree, describe

    view = view_checkpoint(folder, norms)
    if as_json:
        tell_json(view.as_json())
        return
    for label, text in describe(view):
        tell(f"{label:<16} {text}")
    for line in as_tree(view, fold=not every_block):
        tell(line)


@app.command()
def diff(first: str = CHECKPOINT, second: str = CHECKPOINT, as_json: bool = AS_JSON) -> None:
    """Compare two checkpoints of any layouts, element by element; exit code 1 where they differ."""
    folders = find_checkpoint(first), find_checkpoint(second)
    from megatron_patches.checkpoint.offline.comparison import compare
    from tools.commands.checkpoint.diff import print_comparison

    comparison = compare(*folders)
    if as_json:
        tell_json(comparison.as_json())
    else:
        print_comparison(comparison)
    raise typer.Exit(int(comparison.differs))


@app.command()
def verify(
    checkpoint: str = CHECKPOINT,
    every: bool = typer.Option(False, "--all", help="All checkpoints of the run."),
    as_json: bool = AS_JSON,
) -> None:
    """Read every byte and compare it with the manifest; exit code 1 where something is damaged."""
    from tools.commands.checkpoint.verification import verify_checkpoint

    folders = _all_of(checkpoint) if every else [find_checkpoint(checkpoint)]
    found = []
    for folder in folders:
        problems = verify_checkpoint(folder)
        found.append({"name": folder.name, "folder": str(folder), "whole": not problems, "problems": problems})
        if not as_json:
            tell(f"{folder.name}: {'; '.join(problems) if problems else 'whole'}")
    if as_json:
        tell_json(found)
    raise typer.Exit(int(not all(each["whole"] for each in found)))


def _all_of(run: str) -> list[Path]:
    from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights

    return checkpoints_with_weights(find_run_directory(run))


@app.command()
def pin(
    checkpoint: str = CHECKPOINT,
    because: str = typer.Option(help="Why it is to be kept, for whoever wonders later."),
) -> None:
    """Keep a checkpoint whatever the run's rules say."""
    from megatron_patches.artefacts.marks import pin

    refuse_credentials(because, "the reason (--because)")
    folder = find_checkpoint(checkpoint)
    pin(folder, because)
    tell(f"{folder.name} is pinned: {because}")


@app.command()
def unpin(checkpoint: str = CHECKPOINT) -> None:
    """Leave a checkpoint to the run's rules again: the next save may delete it."""
    from megatron_patches.artefacts.marks import unpin

    folder = find_checkpoint(checkpoint)
    unpin(folder)
    tell(f"{folder.name} is not pinned")


@app.command()
def save(
    run: str = typer.Argument(help="A run that is training now: its name, or its directory."),
    because: str = typer.Option("", help="Why; it becomes the checkpoint's pin."),
) -> None:
    """Ask a running run for a checkpoint, which it then keeps pinned."""
    refuse_credentials(because, "the reason (--because)")
    directory = find_run_directory(run)
    write_atomically(directory.save_requested, f"{printable(because)}\n".encode())  # a link of that name is replaced
    tell(f"asked: {directory.save_requested} goes when the checkpoint is whole")


@app.command()
def bench(
    gigabytes: float = typer.Option(1.0, min=0.01, help="State of this size, in GB (10^9 bytes)."),
    repeats: int = typer.Option(10, min=1, help="Measurements of each."),
    folder: Path = typer.Option(Path(), help="On the file system to measure."),
) -> None:
    """What a save costs here: the wait beside torch.save, the writing beside dd and sha256, in turns."""
    from megatron_patches.launch.rank_settings import quieten_libraries

    quieten_libraries()
    from megatron_patches.benchmark.checkpoint_cost import describe_cost, measure_cost

    tell(describe_cost(measure_cost(folder, gigabytes, repeats)), layout=True)
