"""Datasets that lie under a prefix, in whatever state: shards of earlier requests among them."""

import re
from pathlib import Path

from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.manifest import manifest_path


def shards_there(prefix: Path) -> list[Path]:
    """Shards of a dataset, in whatever state, by number."""
    if not prefix.parent.is_dir():
        return []
    named = re.compile(rf"{re.escape(prefix.name)}-\d{{5}}(?=\.(bin|idx|manifest\.json)\Z)")
    found = {match[0] for path in prefix.parent.iterdir() if (match := named.match(path.name))}
    return [prefix.with_name(name) for name in sorted(found)]


def remove_dataset(prefix: Path) -> None:
    """Removes a dataset, its manifest first."""
    for path in (manifest_path(prefix), idx_path(prefix), bin_path(prefix)):
        path.unlink(missing_ok=True)
