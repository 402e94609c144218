"""What a run's script asks of SLURM: each option in any form that sbatch takes, and what a value must be."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping

from slurm.job import JOB_LOG

SHORTEST_NOTICE = 120
"""seconds before the time limit; a step and the save after it must fit in them, and SLURM counts in whole minutes"""
_USUAL_NOTICE = 60
"""seconds that SLURM takes where none are named"""
_SHORT = {
    "A": "account", "p": "partition", "q": "qos", "C": "constraint", "w": "nodelist", "G": "gpus", "D": "chdir",
    "J": "job-name", "N": "nodes", "t": "time", "o": "output", "e": "error", "n": "ntasks", "c": "cpus-per-task",
    "a": "array", "d": "dependency", "b": "begin", "x": "exclude", "L": "licenses", "M": "clusters", "i": "input",
    "s": "oversubscribe", "H": "hold",
}  # fmt: skip
_STOPPING = {"USR1", "TERM", "INT", "HUP", "10", "15", "2", "1"}
"""signals at which `slurm/launch` asks a run to save and stop"""
_SIGNAL = re.compile(r"([RB]{0,2}):?(?:SIG)?([A-Z]+\d?|\d+)(?:@(\d+))?", re.IGNORECASE)
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


def read_options(text: str) -> Iterator[tuple[str, str]]:
    """The options of one #SBATCH line by their long names; flags have an empty value."""
    words = shlex.split(text, comments=True)
    for position, word in enumerate(words):
        if not word.startswith("-"):
            continue
        following = words[position + 1] if position + 1 < len(words) else "-"
        separate = "" if following.startswith("-") else following
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            yield name, value if equals else separate
        else:
            yield _SHORT.get(word[1:2], word[1:2]), word[2:] or separate


def option_problems(options: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the options that every run's script must have, or may not have otherwise."""
    for option, (wanted, complain) in _RULES.items():
        found = options.get(option)
        if found is None:
            if option not in _MAY_BE_MISSING:
                yield f"has no line #SBATCH --{option}{wanted}"
        elif complaint := complain(found, options):
            yield f"--{option} is {found or 'empty'}; write #SBATCH --{option}{wanted}: {complaint}"
    if {"requeue", "no-requeue"} <= options.keys():
        yield "--no-requeue: a job whose node failed would not come back; remove the line"


def _nodes(value: str, _: Mapping[str, str]) -> str | None:
    return None if value else "it has no number"


def _tasks_per_node(value: str, _: Mapping[str, str]) -> str | None:
    return None if value == "1" else "slurm/launch is one task a node, which starts the node's processes"


def _tasks(value: str, options: Mapping[str, str]) -> str | None:
    return None if value == options.get("nodes") else "slurm/launch is one task a node"


def _time(value: str, _: Mapping[str, str]) -> str | None:
    if value.upper() in ("UNLIMITED", "INFINITE") or time_limit(value) is not None:
        return None
    return "sbatch reads minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]"


def time_limit(value: str) -> int | None:
    """Seconds of a `--time`; None for one that is no time, or no limit (0)."""
    found = _TIME.fullmatch(value)
    if found is None:
        return None
    parts = [int(part) for part in found["parts"].split(":")]
    if found["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(found["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds or None
    hours, minutes, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return (hours * 60 + minutes) * 60 + seconds or None


def _signal(value: str, options: Mapping[str, str]) -> str | None:
    found = _SIGNAL.fullmatch(value)
    if found is None or found[2].upper() not in _STOPPING:
        return "slurm/launch asks a run to save and stop at USR1"
    if "B" not in found[1].upper():
        # SLURM sends it to the job's steps then: the launcher in the batch shell does not get it, and every process
        # below srun does
        return (
            "without B: it goes past slurm/launch to every process that srun started, and ends those without a handler "
            "(a container's start program, the service of Weights & Biases)"
        )
    notice = int(found[3]) if found[3] else _USUAL_NOTICE
    if notice < SHORTEST_NOTICE:
        return f"{notice} s before the time limit, and a step and a save may take {SHORTEST_NOTICE}"
    limit = time_limit(options.get("time", ""))
    if limit is not None and notice >= limit:
        return f"{notice} s before the end of a job of {limit} s is its start: it would stop at once; ask for more time"
    return None


def _flag(value: str, _: Mapping[str, str]) -> str | None:
    return f"it takes no value, and has {value}" if value else None


def _open_mode(value: str, _: Mapping[str, str]) -> str | None:
    return None if value[:1].lower() == "a" else "a job that is requeued would empty its log"


def _log(value: str, _: Mapping[str, str]) -> str | None:
    if not value.removeprefix("./").startswith("logs/"):
        return "job logs go to the checkout's logs/, which git ignores"
    return None if re.search(r"%\d*[jJ]|%\d*A.*%\d*a", value) else "each job needs a log of its own (%j, or %A_%a)"


_RULES: Mapping[str, tuple[str, Callable[[str, Mapping[str, str]], str | None]]] = {
    "nodes": ("=...", _nodes),
    "ntasks-per-node": ("=1", _tasks_per_node),
    "ntasks": ("=... as --nodes, or remove it", _tasks),
    "time": ("=...", _time),
    "signal": ("=B:USR1@600", _signal),
    "requeue": ("", _flag),
    "open-mode": ("=append", _open_mode),
    "output": (f"={JOB_LOG}", _log),
    "error": (f"={JOB_LOG}, or remove it", _log),
}
_MAY_BE_MISSING = {"ntasks-per-node", "ntasks", "error"}
"""SLURM's own default is one task a node, and errors in the same log"""
SAME_FOR_ALL = frozenset({"job-name", "ntasks-per-node", "requeue", "open-mode", "output"})
"""options that a new run takes from the template, not from its base"""
