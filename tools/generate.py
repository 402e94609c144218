"""`tools/generate`: let a run continue a text."""

import difflib
import os
from pathlib import Path

import typer

from data_tools.errors import TrainyardError
from tools.command_line import run_app

app = typer.Typer(add_completion=False)


@app.command()
def main(
    run: str = typer.Argument(help="A run's name, or the path of its run directory."),
    prompt: str = typer.Option("", help="Text to continue; empty begins a document."),
    tokens: int = typer.Option(100, min=1, help="Tokens to add at most; a document's end ends it."),
    temperature: float = typer.Option(0.8, min=0.0, help="0 takes the likeliest token each time."),
    top_k: int | None = typer.Option(None, min=1, help="Choose among so many tokens [default: all]."),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same text."),
    step: int | None = typer.Option(None, min=0, help="Of this step's checkpoint [default: the newest whole one]."),
) -> None:
    """Continue a text with the weights of a run's checkpoint, on one process, whatever layout saved it."""
    from megatron_patches.checkpoint.choice import checkpoint_to_read
    from megatron_patches.run_directory import RunDirectory, runs_root

    directory = Path(run) if os.sep in run else runs_root() / run
    if not directory.is_dir():
        made = sorted(path.name for path in runs_root().glob("*/")) if runs_root().is_dir() else []
        near = difflib.get_close_matches(directory.name, made, n=1, cutoff=0.3)
        remedy = f"nearest: {near[0]}" if near else "name a run that was launched, or its run directory"
        raise TrainyardError(f"there is no run directory {directory}; {remedy}")
    folder, damage = checkpoint_to_read(RunDirectory(directory), step)
    for problem in damage:
        typer.echo(f"passed over: {problem}", err=True)
    if damage:
        typer.echo(f"reading {folder.name}", err=True)
    print(_continue(folder, prompt, tokens, temperature, top_k, seed))


def _continue(folder: Path, prompt: str, tokens: int, temperature: float, top_k: int | None, seed: int) -> str:
    from megatron_patches.node import quieten_libraries

    quieten_libraries()  # before what they are imported by
    from megatron_patches.generation.loaded_model import load_model
    from megatron_patches.generation.sampling import Sampling

    return load_model(folder).continue_text(prompt, tokens, Sampling(temperature, top_k, seed))


if __name__ == "__main__":
    run_app(app)
