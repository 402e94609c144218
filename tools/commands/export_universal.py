"""`tools/export-universal`: a checkpoint for DeepSpeed's own engines."""

from pathlib import Path

import typer

from megatron_patches.sizes import counted
from tools.command_line import run_app
from tools.terminal import tell

app = typer.Typer(add_completion=False)


@app.command()
def main(
    checkpoint: str = typer.Argument(help="A run (its newest checkpoint), RUN@STEP, RUN@STEP/weights, or a folder."),
    output: Path = typer.Option(help="New folder that the universal checkpoint is written to."),
    names: str = typer.Option(
        "megatron-deepspeed",
        help="Names to write: megatron-deepspeed (BigScience's pipeline), trainyard, or a YAML that maps them.",
    ),
) -> None:
    """Write a checkpoint in DeepSpeed's universal format, which its engines load under any layout of theirs.

    Load it with `"checkpoint": {"load_universal": true}` in DeepSpeed's configuration and `load_checkpoint(OUTPUT,
    load_lr_scheduler_states=False)`.
    """
    from megatron_patches.artefacts.new_folder import refuse_place
    from tools.run_files.checkpoint_reference import find_whole_checkpoint

    refuse_place(output)
    source = find_whole_checkpoint(checkpoint)
    from megatron_patches.exchange.naming import names_for_export
    from megatron_patches.exchange.universal_export import export_universal

    manifest = export_universal(source, output, names_for_export(names, source))
    size = sum(file.size for file in manifest.files)
    tell(f"{output}: {source.name} in {counted(len(manifest.files), 'file')}, {size:,} bytes, id {manifest.id[:12]}")


if __name__ == "__main__":
    run_app(app, "export-universal")
