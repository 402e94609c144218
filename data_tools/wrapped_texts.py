"""Whether a run's texts can be wrapped as `data.samples.wrapped` asks, and in which tokens."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_tools.data_config import DataConfig
from data_tools.data_problems import documents_end_with
from data_tools.opened_sources import Shard
from data_tools.plans.samples_config import FilteredSection
from data_tools.plans.wrapping import Wrapping
from data_tools.text.special_tokens import SpecialTokens, role_problems, special_tokens
from megatron_patches.errors import refuse

SETTING = "data.samples.wrapped"
ROLES = ("cls", "sep")


def is_wrapped(config: DataConfig) -> bool:
    """Whether each text of a sample is to stand between a cls and a sep token."""
    return isinstance(config.samples, FilteredSection) and config.samples.wrapped


def wrapping_of(config: DataConfig, found: SpecialTokens) -> Wrapping:
    """The tokens around each text of a run that wraps them. A tokenizer without pad token pads with token 0.

    Args:
        found: the special tokens of the run's tokenizer.

    Raises:
        TrainyardError: the tokenizer has no cls or no sep token, or raw text would end in two of these; no text is read
            before.
    """
    ends_texts = found.sep is not None and found.end_of_document == found.sep
    problems = role_problems(config.tokenizer, found, {SETTING: ROLES})
    refuse([*problems, *(_ended_texts(config) if ends_texts else ())])
    assert found.cls is not None and found.sep is not None
    return Wrapping(found.cls, found.sep, found.pad or 0)


def _ended_texts(config: DataConfig) -> Iterator[str]:
    """Raw text that gets the token which ends documents."""
    for source in (*config.all_sources, *(each for group in config.validation for each in group.sources)):
        if source.text is not None and source.text.append_eod:
            yield _twice(f"source {source.name} end", "set its text.append_eod to false")


def token_role_problems(config: DataConfig, checkout: Path, of_objective: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Why the run's settings cannot do with its tokenizer.

    Args:
        of_objective: roles that the objective needs, by what people call it.
    """
    needed = {**of_objective, **({SETTING: ROLES} if is_wrapped(config) else {})}
    if any(needed.values()):
        found = special_tokens(checkout / config.tokenizer, config.allow_invalid)
        yield from role_problems(config.tokenizer, found, needed)


def dataset_problems(shards: Sequence[Shard], wrapping: Wrapping | None) -> Iterator[str]:
    """Datasets whose documents end with the sep token already."""
    for shard in shards:
        if wrapping is not None and documents_end_with(shard, wrapping.sep):
            yield _twice(f"dataset {shard.prefix} end", "run tools/preprocess without --append-eod")


def _twice(what: str, remedy: str) -> str:
    return (
        f"the documents of {what} with an end-of-document token that is the tokenizer's sep token, and {SETTING} adds "
        f"another one; {remedy}"
    )
