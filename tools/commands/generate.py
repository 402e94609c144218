"""`tools/generate`: let a run continue a text."""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from megatron_patches.foreign.printable import printable
from tools.command_line import run_app
from tools.run_files.checkpoint_reference import find_checkpoints
from tools.terminal import remark

app = typer.Typer(add_completion=False)


@app.command()
def main(
    checkpoint: str = typer.Argument(
        help="A run (its newest whole checkpoint), RUN@STEP, RUN@STEP/weights, or a folder."
    ),
    prompt: str = typer.Option("", help="Text to continue; empty begins a document."),
    tokens: int = typer.Option(100, min=1, help="Tokens to add at most; a document's end ends it."),
    temperature: float = typer.Option(0.8, min=0.0, help="0 takes the likeliest token each time."),
    top_k: int | None = typer.Option(None, min=1, help="Choose among so many tokens [default: all]."),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same text."),
) -> None:
    """Continue a text with the weights of a run's checkpoint, on one process, whatever layout saved it."""
    text = _continue(find_checkpoints(checkpoint), prompt, tokens, temperature, top_k, seed)
    print(printable(text, layout=True) if sys.stdout.isatty() else text)  # a model may have learned to steer terminals


def _continue(
    folders: Sequence[Path], prompt: str, tokens: int, temperature: float, top_k: int | None, seed: int
) -> str:
    from megatron_patches.launch.rank_settings import quieten_libraries

    quieten_libraries()  # before what they are imported by
    from megatron_patches.generation.loaded_model import load_model
    from megatron_patches.generation.sampling import Sampling

    model = load_model(folders, passed_over=lambda problem: remark(f"passed over: {problem}"))
    if model.checkpoint != folders[0]:
        remark(f"reading {model.checkpoint.name}")
    return model.continue_text(prompt, tokens, Sampling(temperature, top_k, seed))


if __name__ == "__main__":
    run_app(app, "generate")
