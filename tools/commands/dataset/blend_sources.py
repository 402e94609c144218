"""The sources that `tools/dataset blend` is given: their names, datasets and tokens, and a file of their ratios."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import bin_path, check_files_exist, idx_path
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.datasets.split import split_documents
from data_tools.opened_sources import prefixes_of
from data_tools.sources_config import SourceConfig, plain_name
from megatron_patches.errors import Damaged, TrainyardError, listed
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import number_of, parse_json
from megatron_patches.foreign.printable import printable, shortened

_NAMED = re.compile(r"([^/=]+)=(.+)", re.DOTALL)
_PATTERN = re.compile(r"\[[^\]]*\]|[*?]")
RATIO_KEYS = ("ratio", "weight")
PATH_KEYS = ("dataset_path", "path")


@dataclass(frozen=True)
class BlendSource:
    """One source of a blend."""

    name: str
    path: str
    """A prefix or a pattern, as a run's YAML takes it."""
    datasets: tuple[Path, ...]
    """Prefixes of its datasets: one, or those that match the pattern, sorted."""
    tokens: int
    """What they hold together, or the training documents of the split alone."""


def blend_sources(arguments: Sequence[str], split: str) -> list[BlendSource]:
    """The sources that a command line names, each PATH or NAME=PATH, in their order.

    Args:
        arguments: paths are prefixes, patterns, or end with .bin or .idx.
        split: such as 949,50,1: count the tokens of training documents alone; empty: all.

    Raises:
        TrainyardError: a pattern matches nothing, a dataset is missing or damaged, one holds no tokens, two were made
            with different tokenizers, or two sources have one name.
    """
    given = [_name_and_path(argument) for argument in arguments]
    named = iter(names_from([path for name, path in given if not name]))
    names = [name or next(named) for name, _ in given]
    _refuse_doubles(names, "give each a name of its own, NAME=PATH; of a dataset's files name one, as in data/*.idx")
    sources = []
    for name, (_, path) in zip(names, given, strict=True):
        datasets = tuple(prefixes_of(_as_in_a_run(name, path), Path()))
        tokens = _tokens(datasets, split)
        if not tokens:
            where = f" in the training documents of {shortened(split)}" if split else ""
            raise TrainyardError(f"source {name} ({printable(path)}) holds no tokens{where}; leave it out")
        sources.append(BlendSource(name, path, datasets, tokens))
    _check_tokenizers(sources)
    return sources


def _as_in_a_run(name: str, path: str) -> SourceConfig:
    try:
        return SourceConfig(name=name, path=path)
    except ValidationError as error:
        problems = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise TrainyardError(
            f"source {shortened(name)} ({shortened(path)}): {shortened(problems)}. "
            "NAME=PATH gives a source another name"
        ) from None


def names_from(paths: Sequence[str]) -> list[str]:
    """Names of sources: the last part of each path, without what makes it a pattern, or an earlier one.

    Where these are the same, as in `fr/text` and `en/text`, it is the last part in which all paths differ, if one is.
    """
    parts = [[each for each in map(_without_pattern, PurePath(path).parts) if each] or [path] for path in paths]
    for back in range(1, min(map(len, parts), default=0) + 1):
        names = [each[-back] for each in parts]
        if len(set(names)) == len(names) and all(map(_is_plain, names)):
            return names
    return [each[-1] for each in parts]


def ratios_in(path: Path, sources: Sequence[str]) -> list[float]:
    """The ratios of sources, by their names, from a JSON file.

    It holds an object of names and ratios, or a list of objects, each with a `ratio` (or `weight`) and a `name` or a
    `dataset_path` (or `path`), which names its source as a path on the command line does.

    Raises:
        Missing: there is no such file.
        Damaged: it is not JSON.
        TrainyardError: it holds something else, names a source twice, one that is not among `sources` or not each of
            them, or a ratio is no positive, finite number.
    """
    content = parse_json(read_bounded(path), printable(path), keys_once=True)
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list) and content:
        pairs = _pairs(content, path)
    else:
        raise Damaged(f"{printable(path)} holds neither an object of names and ratios nor a list of objects")
    _refuse_doubles([name for name, _ in pairs], f"each has one ratio in {printable(path)}")
    ratios = dict(pairs)
    problems = [f"{shortened(name)}: no ratio in the file" for name in sources if name not in ratios]
    known = set(sources)
    problems += [f"{shortened(name)}: not among the sources of this command" for name in ratios if name not in known]
    problems += [
        f"{shortened(name)}: {shortened(ratio, 40)} is not a positive, finite number"
        for name, ratio in pairs
        if name in known and not (number_of(ratio) or 0) > 0
    ]
    if problems:
        raise TrainyardError(f"{printable(path)} does not fit the sources:\n{listed(problems)}")
    return [float(ratios[name]) for name in sources]


def _pairs(entries: list[Any], path: Path) -> list[tuple[str, Any]]:
    """Names and ratios of a list of objects."""
    named = [_entry(entry, f"entry {number} of {printable(path)}") for number, entry in enumerate(entries, 1)]
    derived = iter(names_from([where for name, where, _ in named if not name]))
    return [(name or next(derived), ratio) for name, where, ratio in named]


def _entry(entry: Any, origin: str) -> tuple[str, str, Any]:
    """Name (or nothing), path (or nothing) and ratio of one object."""
    if not isinstance(entry, dict):
        raise Damaged(f"{origin} is not an object with a ratio and a path")
    allowed = ("name", *PATH_KEYS, *RATIO_KEYS)
    if unknown := [key for key in entry if key not in allowed]:
        raise TrainyardError(f"{origin} has the key '{shortened(unknown[0], 60)}'; allowed are {', '.join(allowed)}")
    ratios, paths = ([key for key in keys if key in entry] for keys in (RATIO_KEYS, PATH_KEYS))
    name = entry.get("name", "")
    where = entry[paths[0]] if paths else ""
    where = _prefix(where) if isinstance(where, str) else where
    if len(ratios) != 1 or len(paths) > 1 or not isinstance(name, str) or not isinstance(where, str):
        raise TrainyardError(f"{origin} has not one ratio, and at most one path; a name and a path are texts")
    if not name and not where:
        raise TrainyardError(f"{origin} names no source; give it a name or a path")
    return name, where, entry[ratios[0]]


def _name_and_path(argument: str) -> tuple[str, str]:
    """`NAME=PATH` or `PATH`; a path whose first folder has a = in its name is written `./a=b/c`."""
    match = _NAMED.fullmatch(argument)
    name, path = match.groups() if match else ("", argument)
    path = _prefix(path)
    if not PurePath(path).name:
        raise TrainyardError(f"'{shortened(argument)}' names no dataset; give a prefix or a pattern")
    return name, path


def _prefix(path: str) -> str:
    """Without the ending of one of a dataset's files."""
    return path.removesuffix(".bin").removesuffix(".idx")


def _is_plain(name: str) -> bool:
    try:
        return plain_name(name) == name
    except ValueError:
        return False


def _without_pattern(part: str) -> str:
    return _PATTERN.sub("", part).strip("._-/") if has_magic(part) else part.strip("/")


def _tokens(datasets: Sequence[Path], split: str) -> int:
    """Tokens of a source, or those of its training documents: a split cuts all its datasets as one, as in a run."""
    if not split:
        return sum(_tokens_of(prefix) for prefix in datasets)
    opened = [IndexedDataset(prefix) for prefix in datasets]
    first, last = split_documents(split, sum(each.number_of_documents for each in opened))[0]
    tokens = before = 0
    for each in opened:
        begin, end = (min(max(place - before, 0), each.number_of_documents) for place in (first, last))
        tokens += each.document_token_offset(end) - each.document_token_offset(begin)
        before += each.number_of_documents
    return tokens


def _tokens_of(prefix: Path) -> int:
    """Tokens of a dataset, from its manifest or else its index."""
    check_files_exist(bin_path(prefix), idx_path(prefix))
    if manifest_path(prefix).is_file():
        return read_dataset_manifest(prefix)[1].tokens
    return len(IndexedDataset(prefix).tokens)


def _check_tokenizers(sources: Sequence[BlendSource]) -> None:
    """Refuses datasets that were made with different tokenizers, where manifests know theirs."""
    made_with: dict[str, Path] = {}
    for prefix in (prefix for source in sources for prefix in source.datasets if manifest_path(prefix).is_file()):
        made_with.setdefault(read_dataset_manifest(prefix)[1].tokenizer.id, prefix)
    if len(made_with) > 1:
        first, second, *_ = made_with.values()
        raise TrainyardError(
            f"{printable(first)} and {printable(second)} were made with different tokenizers, so that their tokens "
            "cannot be compared, nor read by one run; make them with one tokenizer"
        )


def _refuse_doubles(names: Sequence[str], remedy: str) -> None:
    doubles = [name for name, times in Counter(names).items() if times > 1]
    if doubles:
        raise TrainyardError(
            f"two sources are called {', '.join(shortened(each, 60) for each in doubles[:5])}; {remedy}"
        )
