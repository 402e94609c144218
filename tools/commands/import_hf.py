"""`tools/import-hf`: the weights of a transformers folder, for runs to begin from."""

import shlex
import sys
from pathlib import Path

import typer

from megatron_patches.ending import end_by_term
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.printable import storable
from tools.command_line import run_app
from tools.terminal import tell

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def main(
    context: typer.Context,
    folder: Path = typer.Argument(help="A transformers folder: config.json, safetensors files, the tokenizer's files."),
    run: str | None = typer.Argument(None, help="The run that gets the weights: its name, or the path of its YAML."),
    show: bool = typer.Option(
        False, "--show", help="Print the model: section of a run that fits the folder, and import nothing."
    ),
    text: Path | None = typer.Option(
        None,
        help=r"Text that the card compares on, in UTF-8 \[default: the run's validation samples, where they are here].",
    ),
    card_by_block: bool = typer.Option(
        False,
        "--card-by-block",
        help="Have one block of a model in memory at a time for the card, as models of 1e9 parameters always do.",
    ),
) -> None:
    """Make an artefact of the weights in a transformers folder, from which runs begin by init_from: RUN@0/weights.

    GPT-2, BLOOM, Llama, GPT-NeoX and EuroBERT are read. The run's model: section must be what config.json says, dropout
    and initialisation apart; its tokenizer must give the folder's token ids. A card proves that the artefact and the
    folder compute the same: where they do not, nothing is left. RUN may be followed by overrides, --section.key
    value ...

    Example: tools/import-hf models/gpt2 --show; tools/import-hf models/gpt2 tr40a-124M-gpt2
    """
    if show or run is None:
        _show(folder, run, show)
        return
    from megatron_patches.artefacts.folders import checkpoint_name
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.launch.rank_settings import quieten_libraries
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.run_directory import run_directory
    from tools.run_files.catalogue import find_run

    config = load_run(find_run(run, CHECKOUT), context.args)
    from megatron_patches.transformers_exchange.import_plan import open_data, plan_import

    plan = plan_import(folder, config, open_data(config))
    quieten_libraries()  # before they are imported
    end_by_term()
    from megatron_patches.transformers_exchange.importing import CardRequest, import_transformers

    target = run_directory(config).checkpoints / checkpoint_name(0, "weights")
    command = storable(without_credentials(shlex.join(["tools/import-hf", *sys.argv[1:]])))
    request = CardRequest(command, text, card_by_block)
    done = import_transformers(plan, target, request)
    for line in done.card.told():
        tell(line, layout=True)
    tell(
        f"{done.folder}: {plan.elements:,} parameters of {plan.found.format.model_type}, {plan.dtypes}, id "
        f"{done.manifest.id[:12]}"
    )
    tell(f"a run begins with them by init_from: {config.name}@0/weights")


def _show(folder: Path, run: str | None, asked: bool) -> None:
    from megatron_patches.errors import TrainyardError
    from megatron_patches.transformers_exchange.shown_folder import shown_folder

    if run is not None or not asked:
        raise TrainyardError(
            "name the folder and a run to import into it, or the folder and --show alone to see what it holds"
        )
    tell(shown_folder(folder), layout=True)


if __name__ == "__main__":
    run_app(app, "import-hf")
