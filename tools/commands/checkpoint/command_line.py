"""`tools/checkpoint`: look at checkpoints, compare, verify and keep them."""

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from tools.run_files.checkpoint_reference import find_checkpoint, find_run_directory

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
CHECKPOINT = typer.Argument(help="A run (its newest checkpoint), RUN@STEP, RUN@STEP/weights, or a folder.")
AS_JSON = typer.Option(False, "--json", help="For other programs; numbers are exact.")


@app.command("list")
def list_command(run: str = typer.Argument(help="A run's name, or its directory."), as_json: bool = AS_JSON) -> None:
    """The checkpoints of a run: how large, how good, pinned, read back, or visibly damaged. No tensor is read."""
    from tools.commands.checkpoint.listing import list_run

    lines = list_run(find_run_directory(run).checkpoints)
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
        return
    table = Table("checkpoint", "bytes", "validation loss", "reason", "verified", "pinned", "problem")
    for line in lines:
        loss = "" if line.validation_loss is None else f"{line.validation_loss:.4f}"
        table.add_row(
            line.name, f"{line.bytes:,}", loss, line.reason, line.verified or "", line.pinned or "", line.problem or ""
        )
    Console().print(table)


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
        print(json.dumps(view.as_json(), indent=2))
        return
    console = Console()
    for label, text in describe(view):
        console.print(f"{label:<16} {text}", markup=False, highlight=False)
    console.print(as_tree(view, fold=not every_block))


@app.command()
def diff(first: str = CHECKPOINT, second: str = CHECKPOINT, as_json: bool = AS_JSON) -> None:
    """Compare two checkpoints of any layouts, element by element; exit code 1 where they differ."""
    folders = find_checkpoint(first), find_checkpoint(second)
    from megatron_patches.checkpoint.offline.comparison import compare
    from tools.commands.checkpoint.diff import describe_comparison

    comparison = compare(*folders)
    if as_json:
        print(json.dumps(comparison.as_json(), indent=2))
    else:
        Console().print(describe_comparison(comparison))
    raise typer.Exit(int(comparison.differs))


@app.command()
def verify(
    checkpoint: str = CHECKPOINT,
    every: bool = typer.Option(False, "--all", help="All checkpoints of the run."),
) -> None:
    """Read every byte and compare it with the manifest; exit code 1 where something is damaged."""
    from tools.commands.checkpoint.verification import verify_checkpoint

    folders = _all_of(checkpoint) if every else [find_checkpoint(checkpoint)]
    damaged = 0
    for folder in folders:
        problems = verify_checkpoint(folder)
        damaged += bool(problems)
        print(f"{folder.name}: {'; '.join(problems) if problems else 'whole'}")
    raise typer.Exit(int(damaged > 0))


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

    folder = find_checkpoint(checkpoint)
    pin(folder, because)
    print(f"{folder.name} is pinned: {because}")


@app.command()
def unpin(checkpoint: str = CHECKPOINT) -> None:
    """Leave a checkpoint to the run's rules again: the next save may delete it."""
    from megatron_patches.artefacts.marks import unpin

    folder = find_checkpoint(checkpoint)
    unpin(folder)
    print(f"{folder.name} is not pinned")


@app.command()
def save(
    run: str = typer.Argument(help="A run that is training now: its name, or its directory."),
    because: str = typer.Option("", help="Why; it becomes the checkpoint's pin."),
) -> None:
    """Ask a running run for a checkpoint, which it then keeps pinned."""
    directory = find_run_directory(run)
    directory.save_requested.write_text(because + "\n")
    print(f"asked: {directory.save_requested} goes when the checkpoint is whole")


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

    print(describe_cost(measure_cost(folder, gigabytes, repeats)))
