"""What a launch reads, for the record: sources and validation groups, with the datasets that their paths named."""

import hashlib
from dataclasses import asdict
from typing import Any

from data_tools.data_plan import DataPlan
from data_tools.opened_sources import OpenedSource
from data_tools.opened_text import OpenedText
from data_tools.run_data import RunData
from data_tools.validation_group import ValidationGroup

DATASETS_NAMED = 256
"""datasets of a record that are named one by one, source after source; of the others number and hash tell"""
ENTRIES = 500
"""sources, changes of them, validation groups, and sources of all groups together, of a record; others are counted"""


def record_of(data: RunData, plan: DataPlan) -> dict[str, Any]:
    """The plan's facts, and what the paths of sources and groups named when they were opened: JSON, bounded however
    many datasets there are.

    Each source has `path`, `range` and `shards` as its configuration, and `datasets`: their `count`, the `hash` of what
    they are in the order in which they are read (sha256 of a line `ID PATH` for each), and where there is room for all
    of them `named`, a list of `id` and `path`. A pattern may fit other files tomorrow.
    """
    facts, names = plan.facts(), _Names(DATASETS_NAMED)
    sources = [
        {**planned, **names.describe(opened)}
        for planned, opened in zip(facts["sources"][:ENTRIES], data.sources, strict=False)
    ]
    groups, room = [], ENTRIES
    for planned, group in zip(plan.groups[:ENTRIES], data.groups, strict=False):
        named = _of_group(group, names, room)
        further = len(group.sources) - len(named)
        groups.append({**asdict(planned), "sources": named, **({"further_sources": further} if further else {})})
        room -= len(named)
    left_out = {"further_sources": len(plan.sources) - len(sources), "further_groups": len(plan.groups) - len(groups)}
    changes = facts["changes"][:ENTRIES]
    return {
        **facts,
        "sources": sources,
        "changes": changes,
        "validation": groups,
        **{key: left for key, left in left_out.items() if left},
    }


def _of_group(group: ValidationGroup, names: "_Names", room: int) -> list[dict[str, Any]]:
    total = sum(group.weights)
    return [
        {"name": each.name, "weight": weight / total, **names.describe(each)}
        for each, weight in zip(group.sources[:room], group.weights, strict=False)
    ]


class _Names:
    """Names datasets as long as there is room in the record."""

    def __init__(self, room: int) -> None:
        self._room = room

    def describe(self, opened: OpenedSource | OpenedText) -> dict[str, Any]:
        if isinstance(opened, OpenedText):
            return {"text_source": {**opened.text.model_dump(), **opened.identity, "id": opened.stream_id}}
        source, pairs = opened.source, [(shard.id, str(shard.prefix)) for shard in opened.shards]
        lines = "".join(f"{each} {path}\n" for each, path in pairs).encode(errors="surrogateescape")
        datasets: dict[str, Any] = {"count": len(pairs), "hash": hashlib.sha256(lines).hexdigest()}
        if len(pairs) <= self._room:
            self._room -= len(pairs)
            datasets["named"] = [{"id": each, "path": path} for each, path in pairs]
        order = {"order": source.order} if source.order != "shuffled" else {}
        return {"path": source.path, "range": source.range, "shards": source.shards, **order, "datasets": datasets}
