"""A comparison of two checkpoints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from megatron_patches.checkpoint.offline.comparison import Comparison


def describe_comparison(comparison: Comparison) -> Group:
    """Tables for people."""
    parts: list[Any] = []
    if comparison.facts:
        facts = Table("fact", "first", "second", title="what the manifests say")
        for key, before, after in comparison.facts:
            facts.add_row(key, _short(before), _short(after))
        parts.append(facts)
    if comparison.tensors:
        tensors = Table("tensor", "kind", "difference", "largest", "relative", title="tensors that differ")
        for each in comparison.tensors:
            numbers = ["" if value is None else f"{value:.3g}" for value in (each.largest, each.relative)]
            tensors.add_row(each.name, each.kind, each.what, *numbers)
        parts.append(tensors)
    ending = f"{comparison.same:,} of {comparison.compared:,} tensors that both have are the same, bit for bit"
    return Group(*parts, ending)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
