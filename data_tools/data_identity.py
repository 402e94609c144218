"""What of a run's data decides which samples it reads, in which order, and which tokens a model is asked for."""

import hashlib
from collections.abc import Sequence
from typing import Any

from data_tools.data_config import ONLY_SOURCE, DataConfig
from data_tools.opened_sources import OpenedSource
from data_tools.opened_text import OpenedText
from data_tools.samples.blend import whole_weights
from data_tools.splits.shares import parse_range
from data_tools.text.special_tokens import ROLES, SpecialTokens

TOKENIZER_ROLES = "tokenizer.roles"
"""key of a run's identity"""


def data_identity(config: DataConfig, sources: Sequence[OpenedSource | OpenedText]) -> dict[str, Any]:
    """The datasets and texts of a run.

    `dataset` is the id of one whole dataset; else `blend` has names and weights at the beginning, in their order,
    which decides between sources that are due at once, and `source NAME` the documents of each source that is read at
    any time.

    Args:
        sources: all that are read at any time, those of the beginning first.
    """
    only = _only_dataset(config, sources)
    read_later = sources if only is None else sources[1:]
    found: dict[str, Any] = {f"source {each.name}": each.identity for each in read_later}
    if only is not None:
        return {"dataset": only, **found}
    first = config.first_sources
    weights = whole_weights([each.weight for each in first])
    return {**found, "blend": [[each.name, weight] for each, weight in zip(first, weights, strict=True)]}


def _only_dataset(config: DataConfig, sources: Sequence[OpenedSource | OpenedText]) -> str | None:
    """Id of the dataset, where a run begins with one whole one, as `data.path` names it."""
    (first, *others) = config.first_sources
    usual = first.name == ONLY_SOURCE and parse_range(first.range) == (0, 1) and first.order == "shuffled"
    opened = sources[0]
    is_one = usual and not others and isinstance(opened, OpenedSource) and len(opened.shards) == 1
    return opened.shards[0].id if is_one and isinstance(opened, OpenedSource) else None


def roles_identity(found: SpecialTokens) -> dict[str, Any]:
    """The roles of a run's tokenizer, which files may name that its id does not cover: special_tokens_map.json, and
    what lies in a folder beside a `.model`.
    """
    special = hashlib.sha256(" ".join(map(str, sorted(found.special))).encode()).hexdigest()
    return {TOKENIZER_ROLES: {**{role: getattr(found, role) for role in ROLES}, "special": special}}
