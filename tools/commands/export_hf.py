"""`tools/export-hf`: a checkpoint as a folder of transformers, proved before it has its name."""

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from megatron_patches.artefacts.folders import inspect, parse_checkpoint_name
from megatron_patches.artefacts.new_folder import refuse_place
from megatron_patches.artefacts.run_folder import CHECKPOINTS, CONFIG, RunFolder
from megatron_patches.ending import end_by_term
from megatron_patches.errors import Refused
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.printable import printable, storable
from megatron_patches.sizes import counted, parse_size, readable
from tools.command_line import run_app
from tools.terminal import remark, tell

if TYPE_CHECKING:
    from megatron_patches.transformers_exchange.exporting import ExportRequest

app = typer.Typer(add_completion=False)


@app.command()
def main(
    checkpoint: str = typer.Argument(
        help="A run (its newest checkpoint), RUN@STEP, RUN@STEP/weights, or a folder. Example: tr0a-4M-stdlib@300"
    ),
    output: Path | None = typer.Option(
        None,
        help="New folder. Without it the run keeps the export in exports/hf-step-NUMBER of its own folder. "
        "Example: --output export/tr0a-4M",
    ),
    format: str | None = typer.Option(
        None,
        help="Architecture of transformers: gpt2, bloom, llama, gpt_neox; for encoders eurobert. Without it the first "
        "that can express the model is taken. Example: --format llama",
    ),
    weights: Literal["stored", "masters"] = typer.Option(
        "stored",
        help="stored: in the precision that the run trained with; masters: the optimizer's fp32 masters, which are not "
        "rounded. Example: --weights masters",
    ),
    shard_size: str = typer.Option(
        "5GB",
        metavar="SIZE",
        help="Largest file of weights; a larger tensor has one to itself. Example: --shard-size 2GB",
    ),
    text: Path | None = typer.Option(
        None,
        help="File of UTF-8 text on which source and export are compared. Without it the run's validation samples are "
        "taken, or this project's documents where these are not here. Example: --text held_out.txt",
    ),
    card_by_block: bool = typer.Option(
        False,
        "--card-by-block",
        help="Compare with one block of each model in memory at a time, for models of a billion parameters and more. "
        "Example: --card-by-block",
    ),
) -> None:
    """Write a checkpoint as a folder that transformers loads with from_pretrained, without code of its own.

    Before the folder has its name, every tensor is taken back and compared bit for bit, and logits and a greedy
    continuation of both models are compared on real text; for encoders, masked tokens and padded texts
    instead of the continuation. A comparison that fails leaves nothing. card.json has every figure.
    """
    from tools.run_files.checkpoint_reference import find_whole_checkpoint

    if output is not None:
        refuse_place(output)
    largest = int(parse_size(shard_size, "--shard-size") or 5e9)
    _refuse_missing_library()
    _refuse_early(checkpoint, output, format)
    source = find_whole_checkpoint(checkpoint)
    target = output or _own_place(source)
    refuse_place(target)
    end_by_term()
    from megatron_patches.launch.rank_settings import quieten_libraries

    quieten_libraries()  # before what they are imported by
    from megatron_patches.transformers_exchange.exporting import ExportRequest

    command = storable(without_credentials(shlex.join(["tools/export-hf", *sys.argv[1:]])))
    _export(ExportRequest(source, target, format, weights, largest, text, card_by_block, command))


def _refuse_early(checkpoint: str, output: Path | None, format: str | None) -> None:
    """What a configuration alone tells is told before every byte of a checkpoint is read."""
    from megatron_patches.run.reading import load_resolved
    from megatron_patches.transformers_exchange.choice import choose_format
    from tools.run_files.checkpoint_reference import find_checkpoints

    for folder in find_checkpoints(checkpoint):
        if not inspect(folder).problems:
            refuse_place(output or _own_place(folder))
            choose_format(load_resolved(folder / CONFIG), format)
            return


def _export(request: "ExportRequest") -> None:
    from megatron_patches.transformers_exchange.exporting import export_transformers

    made = export_transformers(request, on=lambda phase: remark(f"{request.checkpoint.name}: {phase}"))
    for note in made.notes:
        remark(f"note: {note}")
    for line in made.card.told():
        tell(line)
    size = sum(file.size for file in made.manifest.files)
    tell(
        f"{made.folder}: {request.checkpoint.name} as {made.card.class_name} in "
        f"{counted(len(made.manifest.files), 'file')}, {readable(size)}, id {made.manifest.id[:12]}"
    )


def _own_place(source: Path) -> Path:
    """Where a run keeps the export of a step.

    Raises:
        Refused: the checkpoint lies in no run's folder.
    """
    name, shelf = parse_checkpoint_name(source.name), source.resolve().parent
    if name is None or shelf.name != CHECKPOINTS:
        raise Refused(f"{printable(source)} lies in no run's folder; say where the export is to be: --output FOLDER")
    return RunFolder(shelf.parent).exports / f"hf-step-{name.step:010d}"


def _refuse_missing_library() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise Refused(
            "exports are compared with transformers, which is not installed; the extra `transformers` brings it: "
            "pip install -c constraints.txt -e .[transformers]"
        )


if __name__ == "__main__":
    run_app(app, "export-hf")
