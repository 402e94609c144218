"""The commands of `tools/inventory` that change what is known or what is kept."""

from pathlib import Path
from typing import Annotated

import typer

from tools.terminal import remark, tell, tell_json

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="For other programs.")]
Because = Annotated[str, typer.Option("--because", help="Why; whoever meets it reads this.")]
What = Annotated[
    str, typer.Argument(metavar="WHAT", help="RUN@STEP, RUN@STEP/weights, an id's beginning, or a folder.")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or a part that no other has.")]


@app.command("invalidate")
def invalidate_command(what: What, because: Because, json_output: AsJson = False) -> None:
    """Mark an artefact and everything that came from it invalid: none of them is used again unless asked for."""
    from megatron_patches.artefacts.inventory.invalidation import invalidate
    from megatron_patches.artefacts.inventory.names import resolve_artefact
    from tools.commands.inventory.listing import open_inventory, tell_marked

    with open_inventory(thorough=True) as inventory:
        marked = invalidate(inventory.catalogue, resolve_artefact(what, inventory.catalogue), because)
    tell_marked(marked, "invalid", json_output)


@app.command("revalidate")
def revalidate_command(what: What, json_output: AsJson = False) -> None:
    """Take `invalidate` back, for the artefact and what was marked with it."""
    from megatron_patches.artefacts.inventory.invalidation import revalidate
    from megatron_patches.artefacts.inventory.names import resolve_artefact
    from tools.commands.inventory.listing import open_inventory, tell_marked

    with open_inventory(thorough=True) as inventory:
        marked = revalidate(inventory.catalogue, resolve_artefact(what, inventory.catalogue))
    tell_marked(marked, "valid", json_output)


@app.command("gold")
def gold_command(
    what: Annotated[str, typer.Argument(metavar="RUN@STEP", help="A checkpoint.")],
    because: Because = "",
    metric: Annotated[
        str,
        typer.Option(
            help="What it was chosen by: mmlu=0.2687, or a "
            "metric of its evaluation, whose value is taken: hellaswag.acc_norm."
        ),
    ] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the promotion back.")] = False,
) -> None:
    """Promote a checkpoint: it is listed as its run's gold, and gc never takes it."""
    from tools.commands.inventory.annotating import promote
    from tools.commands.inventory.listing import open_inventory

    with open_inventory() as inventory:
        tell(promote(inventory, what, because, metric, undo))


@app.command("note")
def note_command(
    run: Run,
    text: Annotated[str, typer.Argument(help="The note.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="Take a tag away.")] = None,
    deprecate: Annotated[str, typer.Option(metavar="REASON", help="The run is not to be used any more.")] = "",
    restore: Annotated[bool, typer.Option("--restore", help="Take the deprecation back.")] = False,
) -> None:
    """Say something about a run; all other states follow from its record."""
    from tools.commands.inventory.annotating import annotate_run
    from tools.commands.inventory.listing import open_inventory

    with open_inventory() as inventory:
        for line in annotate_run(inventory, run, text, tag or [], untag or [], deprecate, restore):
            tell(line)


@app.command("gc")
def gc_command(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help=r"Only these \[default: all].")] = None,
    copied: Annotated[bool, typer.Option("--copied", help="Also checkpoints of which a verified whole copy lies at a "
        "location.")] = False,
    keep_last: Annotated[int, typer.Option(min=1, help="With --copied: newest checkpoints to keep in each run.")] = 2,
    keep_every: Annotated[int | None, typer.Option(min=1, help="With --copied: also steps divisible by this.")] = None,
    do: Annotated[str, typer.Option("--do", metavar="PLAN", help="Carry out the plan of this name.")] = "",
    json_output: AsJson = False,
) -> None:  # fmt: skip
    """Say what may go and why; then, with --do PLAN, remove exactly that."""
    from tools.commands.inventory.gc import collect

    with_retention = (keep_last, keep_every) if copied else None
    collect(runs or [], with_retention, do, json_output)


@app.command("adopt")
def adopt_command(
    folder: Annotated[Path, typer.Argument(help="A foreign checkpoint, or a folder of them; it stays as it is.")],
    run: Annotated[str, typer.Option(help="The run that they are to belong to.")],
    parent: Annotated[list[str] | None, typer.Option(help="An artefact they came from.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Of a checkpoint that does not say it.")] = None,
    allow_invalid: Annotated[bool, typer.Option("--allow-invalid", help="A parent may be invalid.")] = False,
    json_output: AsJson = False,
) -> None:
    """Write manifests for checkpoints of DeepSpeed, Megatron, Lightning or transformers; exit code 1 where some were
    passed over."""
    from tools.commands.inventory.adopt import adopt_folder

    done = adopt_folder(folder, run, parent or [], step, allow_invalid)
    if json_output:
        rows = [{"name": each.checkpoint.name, "id": each.manifest.id, "new": each.is_new} for each in done.adopted]
        left = [{"path": str(each.path), "why": each.reason, "fault": each.is_fault} for each in done.passed_over]
        tell_json({"adopted": rows, "passed_over": left})
    else:
        for each in done.adopted:
            facts, word = each.manifest.facts, "adopted" if each.is_new else "known"
            tell(f"{word} {run}@{facts['step']} ({facts['format']}) {each.manifest.id[:12]}")
    for left_out in done.passed_over:
        remark(f"passed over: {left_out}")
    if any(each.is_fault for each in done.passed_over):
        raise typer.Exit(1)
