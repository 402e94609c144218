"""What the job script of a run must look like: ten lines for SLURM, the run's file, and the ending all runs share."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# name -> value that is the same for all runs; None where each run has its own
REQUIRED: Mapping[str, str | None] = {
    "nodes": None,
    "ntasks-per-node": "1",
    "time": None,
    "signal": "B:USR1@600",
    "requeue": "",
    "open-mode": "append",
    "output": "%x-%j.log",
}
# what belongs to a cluster, not to a run; `sbatch` takes each from an SBATCH_ variable that the site exports
OF_THE_SITE = frozenset({"account", "partition", "qos", "constraint", "reservation", "nodelist", "gres", "gpus"})
OF_THE_SITE |= {"gpus-per-node", "gpus-per-task", "chdir", "mail-user"}
_SHORT = {"A": "account", "p": "partition", "q": "qos", "C": "constraint", "w": "nodelist", "G": "gpus", "D": "chdir"}
_SHORT |= {"J": "job-name", "N": "nodes", "t": "time", "o": "output"}
_MACHINE_PATH = re.compile(r"(?:^|[\s='\":])(/[\w.-]+/[\w./-]*|~[\w/]*|\$\{?(?:HOME|USER|SCRATCH|WORK|STORE)\b)")
_RUN_LINE = re.compile(r"run=(\S+)")


@dataclass(frozen=True)
class SlurmScript:
    """A job script taken apart."""

    options: Mapping[str, str]
    """of the #SBATCH lines, by long name; flags have an empty value"""
    run: str | None
    """the file named by the line `run=...`"""
    other_code: list[str]
    """lines that are neither comments nor the line `run=...`, above the ending"""


def parse_script(text: str, ending: str) -> SlurmScript:
    """Takes apart a job script that ends with `ending`, the text of slurm/script_ending.sh."""
    lines = text.removesuffix(ending).splitlines()
    options: dict[str, str] = {}
    for line in lines:
        if line.startswith("#SBATCH"):
            options.update(_options(line.removeprefix("#SBATCH")))
    code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    runs = [found[1] for line in code if (found := _RUN_LINE.fullmatch(line))]
    other = [line for line in code if not _RUN_LINE.fullmatch(line)]
    return SlurmScript(options, runs[0] if len(runs) == 1 else None, other)


def _options(text: str) -> Iterator[tuple[str, str]]:
    tokens = shlex.split(text, comments=True)
    for position, word in enumerate(tokens):
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("-"):
            following = tokens[position + 1] if position + 1 < len(tokens) else "-"
            yield _SHORT.get(name, name), value if value or following.startswith("-") else following


def script_problems(text: str, ending: str, name: str, run: str) -> Iterator[str]:
    """What is wrong with the script of the run `name` whose file is `run` (relative to the checkout)."""
    if not text.endswith(ending):
        yield "does not end as slurm/script_ending.sh; copy that file's text to the end"
        return  # where the ending begins is not known, so the rest cannot be judged
    script = parse_script(text, ending)
    if script.options.get("job-name") != name:
        found = script.options.get("job-name")
        yield f"job-name is {found}, the run is {name}; write #SBATCH --job-name={name}"
    for option, value in REQUIRED.items():
        wanted = f"#SBATCH --{option}" + (f"={value}" if value else "=..." if value is None else "")
        found = script.options.get(option)
        if found is None:
            yield f"has no line {wanted}"
        elif value is not None and found != value:
            yield f"--{option} is {found or 'empty'}; write {wanted}"
    for option in sorted(OF_THE_SITE & script.options.keys()):
        yield f"--{option} belongs to a cluster; remove the line and put it in slurm/sites/"
    if script.run != run:
        yield f"needs one line run={run} above the ending; it has {script.run}"
    for line in script.other_code:
        yield f"{line!r} is code; settings go into the YAML, what a cluster needs into slurm/sites/"
    for path in _MACHINE_PATH.findall(text.removeprefix("#!/bin/bash").removesuffix(ending)):
        yield f"names the machine's path {path}; a script must run for everyone, on every cluster"
