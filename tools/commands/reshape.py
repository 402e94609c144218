"""`tools/reshape`: write a checkpoint in fewer or more files."""

from pathlib import Path

import typer

from megatron_patches.sizes import counted
from tools.command_line import run_app
from tools.terminal import tell

app = typer.Typer(add_completion=False)


@app.command()
def main(
    checkpoint: str = typer.Argument(help="A run (its newest checkpoint), RUN@STEP, RUN@STEP/weights, or a folder."),
    output: Path = typer.Option(help="New folder that the checkpoint is written to."),
    files: int = typer.Option(min=1, help="Files of weights, and as many of the optimizer's state."),
    weights_only: bool = typer.Option(False, "--weights-only", help="Leave masters and moments out."),
) -> None:
    """Write a checkpoint of any layout anew, in so many files, with all its facts.

    Any layout loads any checkpoint as it is: this is for file systems that want fewer or larger files, and for weights
    that are to be passed on alone. One process does it, with some hundred MB of memory whatever the model's size.
    """
    from megatron_patches.artefacts.new_folder import refuse_place
    from tools.run_files.checkpoint_reference import find_whole_checkpoint

    refuse_place(output)
    source = find_whole_checkpoint(checkpoint)
    from megatron_patches.checkpoint.offline.reshape import reshape_checkpoint

    manifest = reshape_checkpoint(source, output, files, weights_only)
    size = sum(file.size for file in manifest.files)
    tell(f"{output}: {source.name} in {counted(len(manifest.files), 'file')}, {size:,} bytes, id {manifest.id[:12]}")


if __name__ == "__main__":
    run_app(app, "reshape")
