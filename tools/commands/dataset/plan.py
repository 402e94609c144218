"""`tools/dataset plan` and `overlap`: what a run reads of its data, and what validation and training have in common."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from data_tools.data_plan import SourcePlan
    from data_tools.run_data import RunData
    from megatron_patches.run.config import RunConfig

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its YAML; overrides may follow it.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs; numbers are exact.")]
OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
"""of a command that takes a run's overrides"""


def plan(context: typer.Context, run: Run, as_json: AsJson = False) -> None:
    """Show how much a run reads of each of its sources, and make what its launch would make first.

    Hashes of documents and plans of samples are written beside the datasets, or to the folder that TRAINYARD_PLANS
    names where theirs is read-only; a launch then finds them. Exit code 2: the data is not enough for the run,
    or does not fit it.

    Example: tools/dataset plan tr1a-100M-base --data.split_by document_hash
    """
    from data_tools.data_warnings import data_warnings
    from megatron_patches.errors import refuse
    from megatron_patches.run.summary import training_samples
    from tools.tables import print_table
    from tools.terminal import tell, tell_json

    config, data = _open(run, context.args)
    samples = training_samples(config), config.evaluation.samples if config.evaluation else 0
    enough = [*data.training_problems(samples[0]), *data.validation_problems(samples[1])]
    refuse([*data.vocabulary_problems(config.model.vocabulary), *data.answer_problems(), *enough])
    found = data.plan(*samples)
    warnings = [*found.warnings(), *data_warnings(data)]
    if as_json:
        tell_json({**found.facts(), "warnings": warnings})
        return
    head = ("source", "share", "tokens", "samples", "read", "epochs", "cut into")
    rows = [
        (
            each.name,
            f"{each.weight:.2%}" if each.weight else "later",
            _about(each, each.tokens),
            _about(each, each.samples),
            f"{each.planned_samples:,}",
            "unknown" if each.planned_epochs is None else f"{each.planned_epochs:.3f}",
            f"{each.cut_into}; {each.how_cut}",
        )
        for each in found.sources
    ]
    print_table(head, rows, numbers={1, 2, 3, 4, 5})
    for change in found.changes:
        tell(change)
    if config.evaluation:
        tell()
        groups = [(each.name, f"{each.tokens:,}", f"{each.samples:,}", f"{each.read:,}") for each in found.groups]
        print_table(("validation group", "tokens", "samples", "read"), groups, numbers={1, 2, 3})
    for warning in warnings:
        tell()
        tell(f"warning: {warning}")


def _about(source: "SourcePlan", count: int | None) -> str:
    """A number, which of raw text is an estimate."""
    return "unknown" if count is None else f"{'about ' if source.text is not None else ''}{count:,}"


def overlap(context: typer.Context, run: Run, as_json: AsJson = False) -> None:
    """Look for documents of a run's validation that it is trained on too, token for token.

    Datasets without hashes are hashed first; the hashes are kept (tools/dataset hash). Exit code 0: there are none; 1:
    there are some.

    Example: tools/dataset overlap tr1a-100M-base
    """
    from data_tools.data_warnings import describe_overlap, overlaps
    from megatron_patches.sizes import counted
    from tools.terminal import tell, tell_json

    _, data = _open(run, context.args)
    hashes = data.datasets[0].hashes if data.datasets else lambda shard: None
    compared = [(group, found) for group, found in overlaps(data, hashes) if found is not None]
    if as_json:
        tell_json(
            [{"group": g.name, "documents": each.documents, "trained_on_too": each.repeated} for g, each in compared]
        )
    elif not compared:
        tell(
            "one source is split by hash: no document can be on both sides"
            if data.datasets
            else "the run reads raw text, and documents that are held out of it are not trained on"
        )
    else:
        for group, found in compared:
            none = f"{group.name}: none of {counted(found.documents, 'document')} of validation is trained on too"
            tell(describe_overlap(group, found) if found.repeated else none)
    if any(found.repeated for _, found in compared):
        raise typer.Exit(1)


def _open(run: str, overrides: list[str]) -> "tuple[RunConfig, RunData]":
    from data_tools.run_data import RunData
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.launch.preparation import PreparationProgress
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.run_directory import text_preparation
    from tools.run_files.catalogue import find_run

    config = load_run(find_run(run, CHECKOUT), overrides)
    return config, RunData(
        config.data, CHECKOUT, config.lengths, config.place_after, PreparationProgress(), text_preparation(config)
    )
