"""Where runs and their checkpoints are, whether they are whole, what came from them, and which of them is good."""

# Each command imports what it needs: `--help` is to answer in under 0.5 s.

from pathlib import Path
from typing import Annotated

import typer

from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted
from tools.commands.inventory.changes import AsJson, What
from tools.commands.inventory.changes import app as changes
from tools.terminal import remark, tell, tell_json, tell_passed_over

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)


@app.command("list")
def list_command(
    beginning: Annotated[str, typer.Argument(metavar="[BEGINNING]", help="Only runs whose names begin so.")] = "",
    state: Annotated[str, typer.Option(help="Only runs in this state, for example running or stale.")] = "",
    published: Annotated[bool, typer.Option("--published", help="Only runs that others published.")] = False,
    rehearsals: Annotated[bool, typer.Option("--rehearsals", help="Only rehearsals of runs.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Your own, rehearsals, and those that others published.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Your runs, with the state that follows from their events and the queue; --published, --rehearsals and --all
    show others."""
    from tools.commands.inventory.listing import (
        RUN_HEAD,
        by_kind,
        more_of_a_kind,
        open_inventory,
        run_rows,
        tell_unreadable,
    )
    from tools.tables import print_table

    if published + rehearsals + every > 1:
        raise TrainyardError("--published, --rehearsals or --all: give one of them")
    with open_inventory() as inventory:
        names = [name for name in inventory.names() if name.startswith(beginning)]
        kinds = by_kind(inventory, names)
        kind = "rehearsals" if rehearsals else "published" if published else "own"
        shown = names if every else kinds[kind]
        records = [inventory.record(name) for name in shown]
        records = [record for record in records if not state or record.state.word == state]
        if json_output:
            tell_json([record.as_json() for record in records])
        else:
            print_table(RUN_HEAD, run_rows(records))
            for other, left_out in kinds.items():
                if left_out and other != kind and not every:
                    remark(more_of_a_kind(other, len(left_out)))
        tell_unreadable(inventory, records)


@app.command("find")
def find_command(
    terms: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="Words of runs' and files' names, "
        "purposes, notes and tags; all must occur.")] = None,
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    family: Annotated[str, typer.Option(help="Only of runs of this folder of train/, for example tr6.")] = "",
    baseline: Annotated[str, typer.Option(help="Only of runs that differ from this one.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help="checkpoint, export, evaluation, dataset, "
        "document-hashes, plan, tokenizer.")] = None,
    steps: Annotated[str, typer.Option(help="1000, 1000:5000, 1000: or :5000.")] = "",
    tokens: Annotated[str, typer.Option(help="The same, with K, M, B or T: 1B:2B.")] = "",
    metric: Annotated[list[str] | None, typer.Option(help="'validation_loss<3.2', or of an evaluation "
        "'hellaswag.acc_norm>0.3': its checkpoint is found.")] = None,
    layout: Annotated[str, typer.Option(help="'tp2', or 'tp2 pp1'.")] = "",
    location: Annotated[str, typer.Option(help="Part of a location that holds a copy; here: a local folder.")] = "",
    status: Annotated[str, typer.Option(help="valid, or invalid: itself or an ancestor.")] = "",
    tag: Annotated[str, typer.Option(help="A tag of its run.")] = "",
    since: Annotated[str, typer.Option(help="Made on this day or later: 2026-11-01.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 100,
    json_output: AsJson = False,
) -> None:  # fmt: skip
    """Runs and artefacts that fit all that is given."""
    from megatron_patches.artefacts.inventory.search import Wanted
    from tools.commands.inventory.listing import (
        RUN_HEAD,
        artefact_rows,
        left_among,
        open_inventory,
        run_rows,
        tell_unreadable,
    )
    from tools.commands.inventory.search import SearchQuery, search
    from tools.tables import print_table

    if status not in ("", "valid", "invalid"):
        raise TrainyardError(f"--status {status}: valid or invalid")
    wanted = Wanted(
        kinds=kind or [], steps=steps, tokens=tokens, metrics=metric or [], layout=layout, location=location,
        status=status, tag=tag, since=since,
    )  # fmt: skip
    with open_inventory() as inventory:
        found = search(inventory, SearchQuery(terms or [], run, family, baseline, wanted), limit)
        if json_output:
            runs = [record.as_json() for record in found.runs]
            artefacts = [each.as_json() | {"faulty": each.id in found.faulty} for each in found.artefacts]
            tell_json({"runs": runs, "artefacts": artefacts, "number_of_artefacts": found.count})
            for sentence in found.unknown:
                remark(sentence)
            tell_unreadable(inventory, found.runs)
            return
        if found.runs:
            print_table(RUN_HEAD, run_rows(found.runs))
        if found.artefacts:
            if found.runs:
                tell()
            left = left_among(inventory, found.artefacts)
            head = ["artefact", "kind", "id", "status", "size", "tokens", "metrics", "layout"]
            print_table(head, artefact_rows(found.artefacts, found.faulty, left), numbers={4, 5})
        if found.count > len(found.artefacts):
            remark(f"and {found.count - len(found.artefacts):,} more: --limit shows them")
        if not found.runs and not found.artefacts:
            remark("; ".join(["nothing fits", *found.unknown]))
        tell_unreadable(inventory, found.runs)


@app.command("show")
def show_command(what: What, json_output: AsJson = False) -> None:
    """One artefact or run: facts, files, copies, and its lineage up and down."""
    from tools.commands.inventory.listing import open_inventory
    from tools.commands.inventory.show import describe, show

    with open_inventory() as inventory:
        if json_output:
            tell_json(describe(inventory, what))
        else:
            tell(show(inventory, what), layout=True)


@app.command("where")
def where_command(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="RUN, RUN@STEP, RUN@STEP/weights, or an id's beginning.")],
    check: Annotated[bool, typer.Option("--check", help="Look at each copy now, and record what is found.")] = False,
    json_output: AsJson = False,
) -> None:
    """Every copy of a run's artefacts, or of one: where, how large, and when it was last compared."""
    from megatron_patches.sizes import readable
    from tools.commands.inventory.listing import open_inventory
    from tools.commands.inventory.whereabouts import check_copies, copies_of
    from tools.tables import print_table

    with open_inventory() as inventory:
        copies, problems = copies_of(inventory, what)
        if check:
            copies = check_copies(inventory, copies)
    if json_output:
        tell_json([copy.as_json() for copy in copies])
        tell_passed_over(problems, "tools/inventory verify")
        raise typer.Exit(int(bool(problems) or any(copy.problem for copy in copies)))
    rows = [
        [copy.name, "whole" if copy.whole else "part", readable(copy.size), copy.standing, copy.location]
        for copy in copies
    ]
    print_table(["artefact", "holds", "size", "verified", "location"], rows, numbers={2})
    tell_passed_over(problems, "tools/inventory verify")
    if problems or any(copy.problem for copy in copies):
        raise typer.Exit(1)


@app.command("verify")
def verify_command(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="[WHAT]...", help=r"Artefacts or runs \[default: all].")
    ] = None,
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="Do not read the files' content.")] = False,
    json_output: AsJson = False,
) -> None:  # fmt: skip
    """Read artefacts whole and compare them with their manifests; exit code 1 where something is wrong."""
    from megatron_patches.artefacts.inventory.verification import verify_artefact
    from tools.commands.inventory.listing import open_inventory, several

    with open_inventory(thorough=True) as inventory:
        verdicts = [
            verify_artefact(inventory.catalogue, each, not sizes_only) for each in several(inventory, what or [])
        ]
        problems = inventory.problems() if not what else []
    bad = [verdict for verdict in verdicts if verdict.problems]
    if json_output:
        lines = [{"name": each.artefact.name, "id": each.artefact.id, "problems": each.problems} for each in verdicts]
        tell_json({"artefacts": lines, "unreadable": problems})
    else:
        for verdict in bad:
            for problem in verdict.problems:
                tell(f"{verdict.artefact.name}: {problem}")
        remark(f"{len(verdicts) - len(bad)} of {counted(len(verdicts), 'artefact')} whole")
        for problem in problems:
            remark(f"passed over: {problem}")
    if bad or problems:
        raise typer.Exit(1)


@app.command("locations")
def locations_command(json_output: AsJson = False) -> None:
    """Every location that holds copies, or that a run's YAML names."""
    from megatron_patches.sizes import readable
    from tools.commands.inventory.listing import open_inventory
    from tools.commands.inventory.whereabouts import all_locations
    from tools.tables import print_table

    with open_inventory() as inventory:
        found, problems = all_locations(inventory)
    tell_passed_over(problems, "tools/runs lint")
    if json_output:
        tell_json([each.as_json() for each in found])
        return
    rows = [
        [each.location, str(each.copies), readable(each.size), each.verified or "never", each.declared_by]
        for each in found
    ]
    print_table(["location", "copies", "size", "last verified", "declared by"], rows, numbers={1, 2})


@app.command("render")
def render_command(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if something is stale.")] = False,
) -> None:
    """Write checkpoints.md and the table of states in train/README.md."""
    from tools.commands.inventory.listing import open_inventory
    from tools.pages.render import render, stale_files
    from tools.pages.snapshot import renew_snapshot

    if check:
        stale = stale_files(CHECKOUT)
        for line in stale:
            tell(line)
        raise typer.Exit(1 if stale else 0)
    if runs_root().is_dir():
        with open_inventory() as inventory:
            tell_passed_over(renew_snapshot(inventory), "tools/inventory list")
    for path in render(CHECKOUT):
        tell(path.relative_to(CHECKOUT))


@app.command("rebuild")
def rebuild_command() -> None:
    """Forget the catalogue and read every manifest again; it is a cache, and this is never needed for right answers."""
    from megatron_patches.artefacts.inventory.catalogue import delete_catalogue, open_catalogue

    delete_catalogue()
    with open_catalogue() as catalogue:
        renewal = catalogue.renewal
        tell(
            f"{counted(renewal.manifests, 'manifest')} in {counted(renewal.folders, 'folder')}, {renewal.seconds:.1f} s"
        )
        tell_passed_over(catalogue.problems(), "tools/inventory verify")


@app.command("bench")
def bench_command(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoints are made; they are removed again.")],
    checkpoints: Annotated[int, typer.Option(min=1, help="How many manifests.")] = 100_000,
    runs: Annotated[int, typer.Option(min=1, help="Over how many runs.")] = 100,
) -> None:
    """Measure a rebuild of the catalogue, and `find`, `where` and `list` as whole commands, on many checkpoints."""
    from tools.commands.inventory.bench import bench

    bench(folder, checkpoints, runs)


app.add_typer(changes)
