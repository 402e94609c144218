"""The harness's tasks by name, found by a scan of its YAML files: its own index of all of them takes ten seconds."""

import difflib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from megatron_patches.errors import Missing
from megatron_patches.evaluation.tasks.extra import INSTALL, refuse_without
from megatron_patches.foreign.printable import printable

_KEY = re.compile(rb"""^["']?(task|group|tag|include)["']?[ \t]*:[ \t]*(.*?)[ \t]*\r?$""", re.M)
_ITEM = re.compile(rb"""[ \t]*-[ \t]+(.*?)[ \t]*\r?(?:\n|\Z)""")
_CUTOFF = 0.6
_DEEPEST = 10
"""files that include each other"""


@dataclass(frozen=True)
class HarnessNames:
    """Where tasks and groups are written down, and which tasks have a tag."""

    files: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    """tags are names of several tasks, and have no result of their own"""


def harness_folder() -> Path:
    """The folder of the installed harness's tasks; the harness is not imported.

    Raises:
        Missing: it is not installed.
    """
    refuse_without("tasks of the harness", lm_eval="lm-eval")
    found = importlib.util.find_spec("lm_eval")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "tasks"


@cache
def read_names(folder: Path) -> HarnessNames:
    """Scans the YAML files below a folder for what they call their tasks; about a second.

    Raises:
        Missing: there is no such folder.
    """
    if not folder.is_dir():
        raise Missing(f"{printable(folder)} is not there; install the harness again: {INSTALL}")
    names = HarnessNames()
    for path in _yaml_files(folder):
        found = _keys_with_included(path)
        name = next((found[key][0] for key in ("group", "task") if found.get(key)), None)
        if name is None or name in names.files:
            continue
        names.files[name] = path
        for tag in found.get("tag", []) if "group" not in found else []:
            names.tags.setdefault(tag, []).append(name)
    return names


def harness_names() -> dict[str, Path]:
    """Names of tasks, groups and tags; of tags, the file of the first task.

    Raises:
        Missing: the harness is not installed.
    """
    names = read_names(harness_folder())
    return {**{tag: names.files[tasks[0]] for tag, tasks in names.tags.items()}, **names.files}


def nearest_names(word: str, known: Sequence[str]) -> list[str]:
    """The names that are most like a word, at most three; capitals count for nothing."""
    by_small: dict[str, str] = {}
    for name in known:
        by_small.setdefault(name.lower(), name)
    return [by_small[each] for each in difflib.get_close_matches(word.lower(), by_small, n=3, cutoff=_CUTOFF)]


def _yaml_files(folder: Path) -> Iterator[Path]:
    """In the order in which the harness reads them: of two files with one name the first counts."""
    found = (Path(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".yaml"))
    return iter(sorted(found, key=lambda path: path.as_posix()))


@cache
def _keys_with_included(path: Path, depth: int = 0) -> dict[str, list[str]]:
    """What a file says, and what files that it includes say beside it."""
    try:
        own = dict(_top_keys(path.read_bytes()))
    except OSError:
        return {}  # an included file that is not there: asking the task says so
    merged = dict[str, list[str]]()
    for included in own.get("include", []) if depth < _DEEPEST else []:
        merged |= _keys_with_included(path.parent / included, depth + 1)
    return merged | own


def _top_keys(content: bytes) -> Iterator[tuple[str, list[str]]]:
    for found in _KEY.finditer(content):
        value = _bare(found[2])
        values = [value] if value else list(_listed(content, found.end()))
        # a group lists its members under `task`; those are no names of its own
        if value or found[1] in (b"tag", b"include"):
            yield found[1].decode(), [each for each in values if each]


def _listed(content: bytes, place: int) -> Iterator[str]:
    place = content.find(b"\n", place) + 1
    while place and (item := _ITEM.match(content, place)):
        yield _bare(item[1])
        place = item.end()


def _bare(value: bytes) -> str:
    """A scalar without quotes and comment; empty of anything else."""
    text = value.split(b" #")[0].strip().strip(b"\"'").decode(errors="replace")
    return "" if text[:1] in {"[", "{", "|", ">", "!", "#", "&", "*"} else text
