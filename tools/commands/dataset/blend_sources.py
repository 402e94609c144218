"""The sources that `tools/dataset blend` is given: their names, datasets and tokens, and a file of their ratios."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path, PurePath
from typing import Any

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import bin_path, check_files_exist, idx_path
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.datasets.split import split_documents
from megatron_patches.errors import Damaged, Missing, TrainyardError, listed
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import number_of, parse_json
from megatron_patches.foreign.names import check_name, is_name
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
    made_with: dict[str, Path] = {}
    for name, (_, path) in zip(names, given, strict=True):
        check_name(name, f"a source ({shortened(path)}); name it with NAME=PATH")
        datasets = _datasets(path)
        tokens = sum(_tokens(prefix, split, made_with) for prefix in datasets)
        if not tokens:
            where = f" in the training documents of {shortened(split)}" if split else ""
            raise TrainyardError(f"source {name} ({printable(path)}) holds no tokens{where}; leave it out")
        sources.append(BlendSource(name, path, datasets, tokens))
    return sources


def names_from(paths: Sequence[str]) -> list[str]:
    """Names of sources: the last part of each path, without what makes it a pattern, or an earlier one.

    Where these are the same, as in `fr/text` and `en/text`, it is the last part in which all paths differ, if one is.
    """
    parts = [[each for each in map(_without_pattern, PurePath(path).parts) if each] or [path] for path in paths]
    for back in range(1, min(map(len, parts), default=0) + 1):
        names = [each[-back] for each in parts]
        if len(set(names)) == len(names) and all(map(is_name, names)):
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
    content = parse_json(read_bounded(path), printable(path))
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
    if len(ratios) != 1 or len(paths) > 1 or not isinstance(name, str) or not isinstance(where, str):
        raise TrainyardError(f"{origin} has not one ratio, and at most one path; a name and a path are texts")
    if not name and not where:
        raise TrainyardError(f"{origin} names no source; give it a name or a path")
    return name, where, entry[ratios[0]]


def _name_and_path(argument: str) -> tuple[str, str]:
    """`NAME=PATH` or `PATH`; a path whose first folder has a = in its name is written `./a=b/c`."""
    match = _NAMED.fullmatch(argument)
    name, path = match.groups() if match else ("", argument)
    for ending in (".bin", ".idx"):
        path = path.removesuffix(ending)
    if not PurePath(path).name:
        raise TrainyardError(f"'{shortened(argument)}' names no dataset; give a prefix or a pattern")
    return name, path


def _without_pattern(part: str) -> str:
    return _PATTERN.sub("", part).strip("._-/") if has_magic(part) else part.strip("/")


def _datasets(path: str) -> tuple[Path, ...]:
    """The prefixes that a path stands for: those of the `.idx` files that match, where it is a pattern."""
    prefix = Path(path)
    if not has_magic(path) or idx_path(prefix).is_file():
        return (prefix,)
    start = Path(prefix.anchor)
    found = sorted(start.glob(f"{prefix.relative_to(start)}.idx"))
    # what begins with a dot is a file that is being written, or was left behind so
    found = [each for each in found if not each.name.startswith(".")]
    if not found:
        raise Missing(f"{printable(path)}: no dataset matches (no file {printable(path)}.idx); correct the pattern")
    return tuple(each.with_name(each.name.removesuffix(".idx")) for each in found)


def _tokens(prefix: Path, split: str, made_with: dict[str, Path]) -> int:
    """Tokens of a dataset, from its manifest or else its index; those of its training documents where it is split.

    Args:
        made_with: a dataset for each tokenizer so far, to which this one is added.
    """
    check_files_exist(bin_path(prefix), idx_path(prefix))
    if manifest_path(prefix).is_file():
        _, facts = read_dataset_manifest(prefix)
        made_with.setdefault(facts.tokenizer.id, prefix)
        if len(made_with) > 1:
            first, second = made_with.values()
            raise TrainyardError(
                f"{printable(first)} and {printable(second)} were made with different tokenizers, so that their tokens "
                "cannot be compared, nor read by one run; make them with one tokenizer"
            )
        if not split:
            return facts.tokens
    dataset = IndexedDataset(prefix)
    if not split:
        return len(dataset.tokens)
    first_document, end = split_documents(split, dataset.number_of_documents)[0]
    return dataset.document_token_offset(end) - dataset.document_token_offset(first_document)


def _refuse_doubles(names: Sequence[str], remedy: str) -> None:
    doubles = [name for name, times in Counter(names).items() if times > 1]
    if doubles:
        raise TrainyardError(
            f"two sources are called {', '.join(shortened(each, 60) for each in doubles[:5])}; {remedy}"
        )
