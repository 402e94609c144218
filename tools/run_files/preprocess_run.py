"""What a run's YAML says of a dataset that is to be made for it."""

import glob
import os
from dataclasses import replace
from pathlib import Path

from data_tools.data_config import DataConfig
from data_tools.sources_config import SourceConfig
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.run.reading import load_run
from tools.preprocess_asked import Asked


def completed(given: Asked, run: Path, source: str | None, records: bool) -> Asked:
    """What the command line leaves open, as the run needs it.

    Args:
        source: name of the run's source; None: its only one.
        records: whether entries are records, which end as their templates say.

    Raises:
        TrainyardError: the run is not in order, has no such source, or the command line says otherwise.
    """
    data = load_run(run).data
    chosen = _source(data, run, source)
    tokenizer = _placed(data.tokenizer)
    asked = _of_text(given, chosen) if chosen.text is not None else _of_dataset(given, chosen)
    problems = [] if given.tokenizer is None else [*_other_path("--tokenizer", given.tokenizer, tokenizer, run)]
    if given.output is not None and asked.output is not None:
        problems += _other_path("--output", given.output, asked.output, run)
    refuse(problems)
    ended = given.append_eod or (not records and _ends(tokenizer, data.allow_invalid) and _wants_ends(chosen))
    return replace(asked, tokenizer=given.tokenizer or tokenizer, output=given.output or asked.output, append_eod=ended)


def _source(data: DataConfig, run: Path, name: str | None) -> SourceConfig:
    """A source of the run, those for validation among them."""
    every = [*data.all_sources, *(source for group in data.validation for source in group.sources)]
    named = {each.name: each for each in every}
    if name is None and len(named) == 1:
        return every[0]
    if name not in named:
        asked = "which of them is made is not said" if name is None else f"none is called {name}"
        raise TrainyardError(f"{run} has the sources {', '.join(named)}, and {asked}; add --source NAME")
    return named[name]


def _of_text(given: Asked, source: SourceConfig) -> Asked:
    """A source of raw text: all but the output is said."""
    text = source.text
    assert text is not None
    if given.json_keys is not None and given.json_keys != text.key:
        raise TrainyardError(
            f"--json-keys {given.json_keys}, but source {source.name} reads {text.key} (text.key): leave out one"
        )
    if given.inputs and list(given.inputs) != [text.path]:
        raise TrainyardError(
            f"inputs are given, but source {source.name} reads {text.path} (text.path); leave out the inputs"
        )
    return replace(
        given,
        inputs=tuple(_inputs(text.path)),
        json_keys=text.key,
        max_bad=given.max_bad or text.max_bad,
        split=given.split or text.split,
        revision=given.revision or text.revision,
        streaming=given.streaming and text.streaming,
    )


def _inputs(path: str) -> list[str]:
    """What a path of raw text names: itself, or what fits it as a pattern."""
    if path.startswith("hf:"):
        return [path]
    placed = str(_placed(path))
    if not glob.has_magic(placed) or Path(placed).exists():
        return [placed]
    found = sorted(glob.glob(placed))  # noqa: PTH207  absolute
    if not found:
        raise TrainyardError(f"no file fits {path}; correct text.path")
    return found


def _of_dataset(given: Asked, source: SourceConfig) -> Asked:
    """A dataset: its prefix is where it is to be made."""
    assert source.path is not None
    if glob.has_magic(source.path):
        if given.output is None:
            raise TrainyardError(
                f"source {source.name} reads {source.path}, which may be many datasets; add --output with the prefix "
                "of one of them"
            )
        return given
    return replace(given, output=_placed(source.path))


def _placed(path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else CHECKOUT / path


def _other_path(option: str, given: Path, needed: Path, run: Path) -> list[str]:
    if os.path.realpath(given) == os.path.realpath(needed):
        return []
    return [f"{option} {given}, but {run} reads {needed}; leave out {option}, or change the run"]


def _wants_ends(source: SourceConfig) -> bool:
    return source.text is None or source.text.append_eod


def _ends(tokenizer: Path, allow_invalid: bool) -> bool:
    """Whether there is a token for it; without one, documents of a run cannot end."""
    return load_tokenizer(tokenizer, allow_invalid).end_of_document is not None
