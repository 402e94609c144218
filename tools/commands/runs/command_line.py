"""The numbered runs under train/: listed, shown, compared, begun and checked."""

# Each command imports what it needs: configurations cost 0.35 s to import, and `--help` is to answer in under 0.5 s.

import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from tools.tables import print_table
from tools.terminal import remark, tell, tell_json

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or the path of its YAML.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs.")]


@app.command("list")
def list_command(
    beginning: Annotated[
        str, typer.Argument(metavar="[BEGINNING]", help="Only runs whose names begin so, for example tr6 or tr6b.")
    ] = "",
    json_output: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As it stands in train/README.md.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Refresh the table in train/README.md.")] = False,
) -> None:
    """All runs by family, with their baseline, size, tokens and purpose."""
    from tools.commands.runs.listing import by_family, chosen
    from tools.pages.train_table import markdown, write_table
    from tools.run_files.catalogue import as_json, describe_all

    if beginning and (as_markdown or write):
        raise TrainyardError(
            "the table in train/README.md has all runs: leave out BEGINNING, or --markdown and --write"
        )
    lines, problems = describe_all(CHECKOUT)
    if write and not problems:
        write_table(CHECKOUT / "train" / "README.md", lines)
    elif json_output:
        tell_json(as_json(chosen(lines, beginning)))
    elif as_markdown:
        tell(markdown(lines), layout=True)
    else:
        tell(by_family(chosen(lines, beginning), shutil.get_terminal_size().columns), layout=True)
    if problems:
        raise TrainyardError("\n".join(problems))


@app.command("show", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def show_command(
    context: typer.Context,
    run: Run,
    processes: Annotated[
        int | None, typer.Option(min=1, help=r"Lay the run out on so many processes \[default: one copy of the model].")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Add every key with its value.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="Add every key with its value and meaning.")] = False,
    json_output: AsJson = False,
) -> None:
    """A run as it is resolved: its size, layout, length and learning rates.

    RUN may be followed by overrides, --section.key value ..., as in a launch.

    Example: tools/runs show tr3d-1B3-more-warmup --processes 64 --parallel.tensor 4
    """
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.summary import aligned
    from tools.commands.runs.compare import resolved_values
    from tools.commands.runs.fields import explain_keys
    from tools.commands.runs.show import view_run
    from tools.run_files.catalogue import find_run

    view = view_run(load_run(find_run(run, CHECKOUT), context.args), processes)
    for problem in view.problems:
        remark(f"passed over: {problem}")
    if json_output:
        tell_json(view.as_json())
        return
    width = shutil.get_terminal_size().columns
    tell(f"{aligned(view.headlines(), width)}\n", layout=True)
    parts = [[part, f"{number:,}", share] for part, number, share in view.parts()]
    print_table(["part", "parameters", "share"], parts, numbers={1, 2})
    tell()
    if stages := [[number, f"{parameters:,}", layers] for number, layers, parameters in view.stages()]:
        print_table(["stage", "parameters", "layers"], stages, numbers={0, 1})
        tell()
    print_table(["step", "learning rate", ""], view.rates(), numbers={0, 1})
    tell(f"\n{view.plot(width)}\n", layout=True)
    if view.changes:
        print_table(["after step", "changed", "before", "now"], view.changed(), numbers={0})
        tell()
    if fields:  # a paragraph for each: a table would have no room for the meaning
        for line in explain_keys(view.config):
            tell(line.as_text(width), layout=True)
    elif keys:
        print_table(["key", "value"], [[key, value] for key, value in resolved_values(view.config).items()])


@app.command("fields")
def fields_command(
    beginning: Annotated[
        str,
        typer.Argument(metavar="[BEGINNING]", help="Only keys that begin so, for example optimizer or model.position."),
    ] = "",
    json_output: AsJson = False,
) -> None:
    """Every key that a run may have: its default, what it can be, what it means.

    Example: tools/runs fields data.sources
    """
    from tools.commands.runs.reference import reference

    sections = reference(beginning)
    if json_output:
        tell_json([section.as_json() for section in sections])
        return
    width = shutil.get_terminal_size().columns
    for position, section in enumerate(sections):
        if position:
            tell()
        typer.secho(section.heading, bold=True)  # plain where it is no terminal
        tell(section.as_text(width), layout=True)


@app.command("diff")
def diff_command(
    run: Run,
    other: Annotated[str | None, typer.Argument(help=r"Compare with this run \[default: its base].")] = None,
    json_output: AsJson = False,
) -> None:
    """In which settings a run differs from its base, or from another run.

    Example: tools/runs diff tr3h-350M-v2
    """
    from megatron_patches.configuration.layers import base_of
    from megatron_patches.run.reading import load_run
    from tools.commands.runs.compare import compare_runs
    from tools.run_files.catalogue import find_run

    path = find_run(run, CHECKOUT)
    against = find_run(other, CHECKOUT) if other else base_of(path)
    if against is None:
        raise TrainyardError(f"{path.stem} has no base: name the run to compare with, tools/runs diff {run} OTHER")
    differences = compare_runs(load_run(against), load_run(path))
    if json_output:
        keys = [{"key": each.key, "first": each.first, "second": each.second} for each in differences]
        tell_json({"first": against.stem, "second": path.stem, "differences": keys})
        return
    if not differences:
        tell(f"{path.stem} and {against.stem} have the same settings")
        return
    print_table(["key", against.stem, path.stem], [[each.key, each.first, each.second] for each in differences])


@app.command("compare")
def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs that were launched, by name, a part of it that no other has, or directory; or YAMLs, of which "
            "only the settings are compared.",
        ),
    ],
    over: Annotated[
        Literal["steps", "tokens"] | None,
        typer.Option(
            help=r"What counts as equally far \[default: tokens where the runs read different numbers of them]."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help=r"Compare at this step, or at so many tokens (400M, 2B) \[default: the last that all have reached].",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What is compared and drawn: training_loss, validation_loss, learning_rate, tokens_per_second, "
            "text_tokens_per_second, padding, seconds_per_step, data_wait_seconds, grad_norm or tflops_per_process; "
            r"may be given several times \[default: both losses; in the PNG also learning rate and tokens/s]."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help=r"Validation group whose loss is compared \[default: the one by which the first run tells its best]."
        ),
    ] = None,
    window: Annotated[int, typer.Option(min=1, help="Steps over which training losses are averaged.")] = 100,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every step: a row a run and step.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves, a panel a metric.")] = None,
    json_output: AsJson = False,
) -> None:
    """Runs beside each other: progress, losses, rates, speed, and the settings that differ.

    Losses are compared where all runs have come equally far, so that none is better for having trained longer.

    Example: tools/runs compare tr3d tr4c --over tokens --png curves.png
    """
    from tools.commands.runs.comparison import compare

    if not compare(runs, CHECKOUT, over, at, metric or [], group, window, csv, png, json_output):
        raise typer.Exit(1)


@app.command("new")
def new_command(
    name: Annotated[str, typer.Argument(help=r"tr<N>\[letter]-<size>-<description>")],
    base: Annotated[str, typer.Option(help="The baseline it differs from: a run's name or path.")],
    why: Annotated[str, typer.Option(help="What the run is for, in a line.")],
) -> None:
    """Begin a run: its YAML and job script, in a new family with a README to fill in.

    Example: tools/runs new tr30a-1B3-mine --base tr3d-1B3-more-warmup --why "our own text"
    """
    from tools.commands.runs.new import create_run
    from tools.run_files.catalogue import find_run

    for path in create_run(name, find_run(base, CHECKOUT), why, CHECKOUT):
        tell(path.relative_to(CHECKOUT))
    remark(
        "next: write the difference into the YAML and the reasons into the README; tools/runs list --write then renews "
        "the table, and tools/runs lint checks all"
    )


@app.command("rollback")
def rollback_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was launched, or its directory.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="STEP|best|best:TASK.METRIC",
            help="The checkpoint that the next launch resumes from: its step, the one of lowest validation loss, or "
            "the best by an evaluation, for example best:hellaswag.acc_norm.",
        ),
    ],
    because: Annotated[str, typer.Option(help="Why, in a line; it is kept with the run.")] = "",
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FROM:TO",
            help="Samples to leave out from there on: places in the run's order of samples, from 0, TO not among them. "
            "May be given several times.",
        ),
    ] = None,
    skip_steps: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM:TO", help="The same by steps: the samples that steps FROM to TO - 1 read."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json_output: AsJson = False,
) -> None:
    """Resume a run from an earlier checkpoint, named or the best one, and leave out samples where asked.

    Later checkpoints are kept and marked abandoned. The run is started as before, and goes on from there. What an
    earlier rollback left out is read again unless the checkpoint was saved after it, or --skip names it again.

    Example: tools/runs rollback tr3d-1B3-more-warmup --to 12000 --skip-steps 12400:12600 --because "loss spike"
    """
    from megatron_patches.run.summary import aligned
    from tools.commands.runs.rollback import headline, perform, plan_rollback, rebuild_pictures
    from tools.run_files.checkpoint_reference import find_run_directory

    rollback = plan_rollback(find_run_directory(run), to, skip or [], skip_steps or [])
    launch = None if dry_run else perform(rollback, because)
    pictures = rebuild_pictures(rollback) if launch else None
    if json_output:
        tell_json({**rollback.as_json(), "launch": launch.name if launch else None})
        return
    tell(headline(rollback, launch))
    tell(aligned(rollback.describe(), shutil.get_terminal_size().columns), layout=True)
    if pictures:
        remark(pictures)


@app.command("lint")
def lint_command(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help=r"Only these \[default: all].")] = None,
    json_output: AsJson = False,
) -> None:
    """Check names, sizes, scripts, READMEs and the table; exit code 1 if something is wrong."""
    from megatron_patches.sizes import counted
    from tools.commands.runs.lint import lint_all, lint_runs
    from tools.run_files.catalogue import find_run, run_files

    files = [find_run(run, CHECKOUT).resolve() for run in runs or []]
    problems = lint_runs(files, CHECKOUT) if files else lint_all(CHECKOUT)
    checked = len(files or run_files(CHECKOUT))
    if json_output:
        tell_json({"runs": checked, "problems": problems})
        raise typer.Exit(int(bool(problems)))
    for problem in problems:
        tell(problem)
    if problems:
        remark(counted(len(problems), "problem"))
        raise typer.Exit(1)
    remark(f"{counted(checked, 'run')} in order")
