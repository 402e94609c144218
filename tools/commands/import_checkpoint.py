"""`tools/import-checkpoint`: let a run continue from another program's checkpoint."""

from pathlib import Path

import typer

from megatron_patches.sizes import counted
from tools.command_line import run_app
from tools.terminal import remark, tell

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def main(
    context: typer.Context,
    folder: Path = typer.Argument(help="A global_stepN folder of DeepSpeed or Megatron-DeepSpeed, or a universal one."),
    run: str = typer.Argument(help="The run that is to continue it: its name, or the path of its YAML."),
    names: str = typer.Option(
        "megatron-deepspeed", help="Their names: megatron-deepspeed, trainyard, or a YAML that maps them."
    ),
    weights_only: bool = typer.Option(
        False, "--weights-only", help="Weights alone, for runs to begin from: init_from: RUN@STEP/weights."
    ),
    at_step: int | None = typer.Option(
        None, min=0, help=r"Count it as this step of the run \[default: the step it was saved at; 0 of weights alone]."
    ),
    average_replicas: bool = typer.Option(
        False, "--average-replicas", help="Take the mean where tensor-parallel ranks' copies drifted apart (BLOOM)."
    ),
    all_names: bool = typer.Option(False, "--all-names", help="Where names do not match, tell all of them."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="DANGEROUS: read files that can run any program hidden in them."
    ),
) -> None:
    """Put a checkpoint of DeepSpeed or Megatron-DeepSpeed into a run's directory; the run's next launch continues it.

    Weights, fp32 masters, moments, the count of updates and the step go along. Names are strict: every parameter of
    the run must be found, and every one of theirs used. RUN may be followed by overrides, --section.key value ..., the
    same as its launches get.

    With --weights-only an artefact of weights alone is made, without reading files of an optimizer. A run begins from
    it that has init_from: RUN@0/weights, this run or any other.
    """
    from megatron_patches.artefacts.inventory.catalogue import open_catalogue
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.run_directory import run_directory
    from tools.run_files.catalogue import find_run

    config = load_run(find_run(run, CHECKOUT), context.args)
    from megatron_patches.exchange.adoption import ImportRequest, import_checkpoint
    from megatron_patches.exchange.deepspeed_folder import find_checkpoint_folder
    from megatron_patches.exchange.known_source import adopted_as

    with open_catalogue() as catalogue:
        adopted = adopted_as(catalogue, find_checkpoint_folder(folder))
    request = ImportRequest(
        folder, config, names, weights_only, at_step, average_replicas, trust_pickle, all_names, adopted
    )
    done = import_checkpoint(request, run_directory(config))
    for note in done.notes:
        remark(f"note: {note}", layout=True)
    if weights_only:
        tell(
            f"{done.folder}: {done.parameters:,} parameters from {done.format}; a run begins with them by init_from: "
            f"{config.name}@{done.progress.step}/weights"
        )
        return
    tell(
        f"{done.folder}: {done.parameters:,} parameters from {done.format}, step {done.progress.step}, "
        f"{counted(done.progress.samples, 'sample')}, {done.optimizer_steps} updates in the optimizer"
    )


if __name__ == "__main__":
    run_app(app, "import-checkpoint")
