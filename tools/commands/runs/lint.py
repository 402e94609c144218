"""Whether the runs under train/ keep to the rules: names, sizes, scripts, READMEs, the table."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_patches.errors import TrainyardError
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.reading import load_run
from megatron_patches.sizes import short
from tools.commands.runs.new import TEMPLATE, UNWRITTEN
from tools.pages.render import stale_files
from tools.pages.train_table import markdown, table_in_readme
from tools.run_files.catalogue import describe_line, run_files
from tools.run_files.name import FAMILY_PATTERN, RUN_PATTERN, family_number, parse_run_name
from tools.run_files.slurm_script import script_problems

SIZE_TOLERANCE = 0.05
FEWEST_WORDS = 40


def lint_runs(files: Sequence[Path], checkout: Path) -> list[str]:
    """What is wrong with these runs alone, one line a problem.

    Raises:
        TrainyardError: a file does not lie in a folder of train/.
    """
    for path in files:
        if path.parents[1] != checkout / "train":
            raise TrainyardError(f"{path} is not in a folder of {checkout / 'train'}; only such runs are checked")
    return [f"{path.relative_to(checkout)}: {problem}" for path in files for problem in _run_problems(path, checkout)]


def lint_all(checkout: Path) -> list[str]:
    """What is wrong with all runs, their families, the templates and the table, one line a problem."""
    train = checkout / "train"
    problems = lint_runs(run_files(checkout), checkout)
    for script in sorted(train.glob("*/*.slurm")):
        if not script.with_suffix(".yaml").is_file():
            problems.append(f"{script.relative_to(checkout)}: has no {script.stem}.yaml beside it; write or remove one")
    families = sorted(path for path in train.iterdir() if path.is_dir())
    for family in families:
        problems += [f"{family.relative_to(checkout)}: {problem}" for problem in _family_problems(family)]
    problems += _shared_numbers(families)
    problems += _template_problems(checkout)
    problems += _table_problems(checkout)
    # these pages are drawn from all the rest: while that is wrong they need not be right
    return problems or list(_inventory_problems(checkout))


def _inventory_problems(checkout: Path) -> Iterator[str]:
    try:
        yield from stale_files(checkout)
    except TrainyardError as error:
        yield str(error)


def _run_problems(path: Path, checkout: Path) -> Iterator[str]:
    name, family = path.stem, path.parent.name
    parsed = parse_run_name(name)
    if parsed is None:
        yield f"the name is not formed as {RUN_PATTERN}"
    elif parsed.number != family_number(family):
        yield f"the run's number is {parsed.number}, its folder is {family}; move it to a folder tr{parsed.number}-..."
    try:
        config = load_run(path)
    except TrainyardError as error:
        yield from (f"does not load: {line.removeprefix(f'{path}: ')}" for line in str(error).splitlines())
    else:
        parameters = count_parameters(config.model, config.lengths).total
        if parsed and abs(parameters / parsed.parameters - 1) > SIZE_TOLERANCE:
            yield (
                f"the name says {parsed.size}, the model has {parameters:,} ({short(parameters)}): more than "
                f"{SIZE_TOLERANCE:.0%} apart, so correct the name or the model"
            )
    script = path.with_suffix(".slurm")
    if not script.is_file():
        yield f"has no {script.name} beside it; `tools/runs new` writes both"
    else:
        text, run = script.read_text(encoding="utf-8", errors="replace"), path.relative_to(checkout).as_posix()
        yield from (f"{script.name} {problem}" for problem in script_problems(text, _ending(checkout), name, run))


def _ending(checkout: Path) -> str:
    return (checkout / "slurm" / "script_ending.sh").read_text(encoding="utf-8")


def _family_problems(family: Path) -> Iterator[str]:
    if family_number(family.name) is None:
        yield f"the folder's name is not formed as {FAMILY_PATTERN}"
    readme = family / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else None
    if text is None:
        yield "has no README.md; write what the runs are for and what is known of them"
    elif UNWRITTEN in text:
        yield f"README.md still has a part {UNWRITTEN}; write it"
    elif len(text.split()) < FEWEST_WORDS:
        yield f"README.md has {len(text.split())} words, a stub; write what the runs are for and what is known of them"


def _shared_numbers(families: Sequence[Path]) -> Iterator[str]:
    by_number = defaultdict(list)
    for family in families:
        by_number[family_number(family.name)].append(family.name)
    for number, names in by_number.items():
        if number is not None and len(names) > 1:
            yield f"train: the number {number} has {len(names)} families: {', '.join(names)}; give one another number"


def _template_problems(checkout: Path) -> Iterator[str]:
    """The template's script is a run's script whose name is still open."""
    name, family = "{{name}}", "{{family}}"
    script = checkout / "train" / f"{TEMPLATE}.slurm"
    text, run = script.read_text(encoding="utf-8", errors="replace"), f"train/{family}/{name}.yaml"
    for problem in script_problems(text, _ending(checkout), name, run):
        yield f"{script.relative_to(checkout)}: {problem}"


def _table_problems(checkout: Path) -> Iterator[str]:
    readme = checkout / "train" / "README.md"
    try:
        lines = [describe_line(path) for path in run_files(checkout)]
    except TrainyardError:
        return  # the run that does not load has a line of its own
    try:
        stale = table_in_readme(readme) != markdown(lines)
    except TrainyardError as error:
        yield str(error)
    else:
        if stale:
            yield "train/README.md: the table of runs is stale; `tools/runs list --write` makes it anew"
