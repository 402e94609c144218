"""What the newest launch of a run read: from its record, for people."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.events.reading import scan_events
from megatron_patches.foreign.json_text import number_of, whole_of
from megatron_patches.foreign.printable import shortened
from megatron_patches.sizes import counted

_TOLD = 12
"""sources and groups that are named"""


@dataclass(frozen=True)
class RecordedData:
    """The record of a launch's data, see `data_tools/data_record.py`."""

    launch: str
    facts: dict[str, Any]

    def describe(self) -> Iterator[tuple[str, str]]:
        """Labels and texts."""
        sources, groups = self._list("sources"), self._list("validation")
        more = whole_of(self.facts.get("further_sources")) or 0
        found = [each for each in (_datasets(source) for source in sources) if each is not None]
        step = whole_of(self.facts.get("step")) or 0
        texts = sum(1 for source in sources if _text(source) is not None)
        kinds = [*([counted(sum(found), "dataset")] if found else []), *(["raw text"] if texts else [])]
        told = f"{counted(len(sources) + more, 'source')} of {' and '.join(kinds)}" if kinds else "no source"
        yield "data read", f"{told}, recorded by launch {self.launch} after step {step:,}: {_named(sources, more)}"
        changes = self.facts.get("changes")
        for change in [each for each in changes if isinstance(each, str)][:_TOLD] if isinstance(changes, list) else []:
            yield "data changes", shortened(change, 400)
        best = self.facts.get("best_by")
        if isinstance(best, str) and groups:
            by = f"; the best checkpoint by {shortened(best, 80)}" if len(groups) > 1 else ""
            yield "validated on", f"{_named(groups, whole_of(self.facts.get('further_groups')) or 0)}{by}"

    def _list(self, key: str) -> list[Mapping[str, Any]]:
        found = self.facts.get(key)
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def read_recorded_data(events: Path, problems: list[str]) -> RecordedData | None:
    """The newest launch's; None where none recorded it. What cannot be read is added to the problems."""
    found, unread = scan_events(events, ("data",))
    problems += unread
    return RecordedData(found[-1].launch, found[-1].facts) if found else None


def _datasets(source: Mapping[str, Any]) -> int | None:
    datasets = source.get("datasets")
    return whole_of(datasets.get("count")) if isinstance(datasets, dict) else None


def _named(entries: list[Mapping[str, Any]], more: int) -> str:
    names = [
        shortened(each.get("name"), 80) + _share(each, len(entries)) + _text_told(each) for each in entries[:_TOLD]
    ]
    more += len(entries) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


def _text(source: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is recorded of raw text; None of datasets."""
    text = source.get("text_source")
    return text if isinstance(text, dict) else None


def _text_told(entry: Mapping[str, Any]) -> str:
    text = _text(entry)
    return "" if text is None else f" (text {shortened(text.get('path'), 100)})"


def _share(entry: Mapping[str, Any], entries: int) -> str:
    share = number_of(entry.get("weight"))
    if share is None or entries < 2:
        return ""
    return f" {share:.1%}" if share else " later"
