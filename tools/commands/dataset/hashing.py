"""What `tools/dataset hash` does: the hashes of each dataset's documents, made where there are no whole ones."""

import time
from collections.abc import Sequence
from pathlib import Path

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import read_dataset_manifest
from data_tools.splits.document_hashes import HashingProgress, make_hashes, open_hashes
from megatron_patches.errors import Damaged, Refused
from megatron_patches.sizes import counted
from tools.terminal import remark, tell


def hash_datasets(prefixes: Sequence[Path]) -> None:
    """Hashes datasets one after the other, with a bar on a terminal; all of them are opened before the first is read.

    Raises:
        TrainyardError: one of them is missing, damaged or marked invalid, or its hashes cannot be written.
    """
    opened = [(prefix, IndexedDataset(prefix), read_dataset_manifest(prefix)[0].id) for prefix in prefixes]
    for prefix, dataset, dataset_id in opened:
        documents = counted(dataset.number_of_documents, "document")
        if _has_hashes(prefix, dataset_id, dataset.number_of_documents):
            tell(f"{prefix}: the hashes of {documents} are there")
            continue
        started = time.perf_counter()
        path = _with_bar(prefix, dataset, dataset_id)
        seconds = time.perf_counter() - started
        tell(f"{path}: hashes of {documents}, {counted(len(dataset.tokens), 'token')} in {seconds:,.1f} s")


def _has_hashes(prefix: Path, dataset_id: str, documents: int) -> bool:
    try:
        return open_hashes(prefix, dataset_id, documents) is not None
    except (Damaged, Refused) as error:
        remark(f"made again: {error}")
        return False


def _with_bar(prefix: Path, dataset: IndexedDataset, dataset_id: str) -> Path:
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("hashing", total=None)

        def show(progress: HashingProgress) -> None:
            bar.update(task, total=progress.total_tokens, completed=progress.tokens)

        return make_hashes(prefix, dataset, dataset_id, show)
