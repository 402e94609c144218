"""A comparison of two checkpoints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_patches.foreign.printable import shortened
from tools.tables import print_table
from tools.terminal import tell

if TYPE_CHECKING:
    from megatron_patches.checkpoint.offline.comparison import Comparison


def print_comparison(comparison: Comparison) -> None:
    """Tables for people."""
    if comparison.facts:
        facts = [[key, shortened(before, 60), shortened(after, 60)] for key, before, after in comparison.facts]
        print_table(["fact", "first", "second"], facts)
        tell()
    if comparison.tensors:
        rows = []
        for each in comparison.tensors:
            numbers = ["" if value is None else f"{value:.3g}" for value in (each.largest, each.relative)]
            rows.append([each.name, each.kind, each.what, *numbers])
        print_table(["tensor", "kind", "difference", "largest", "relative"], rows, numbers={3, 4})
        tell()
    tell(f"{comparison.same:,} of {comparison.compared:,} tensors that both have are the same, bit for bit")
