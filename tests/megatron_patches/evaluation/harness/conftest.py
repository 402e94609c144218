"""Exports of random weights, and the files of tiny tasks; made once, and only read."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.megatron_patches.evaluation.harness.tiny_tasks import write_files
from tests.megatron_patches.transformers_exchange.checkpoints import save_random, small_run
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

WINDOW = 192


@dataclass(frozen=True)
class Made:
    """Of each family a checkpoint and its export, and the items."""

    folder: Path
    checkpoints: dict[str, Path]

    @property
    def items(self) -> Path:
        return self.folder / "items"

    def export(self, family: str) -> Path:
        return self.folder / family / "export"


def _make(folder: Path, data: SmallData) -> dict[str, Path]:
    from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers

    made: dict[str, Path] = {}
    for family in ("gpt2", "bloom"):
        config = small_run(data, folder / family, family, data__sequence_length=WINDOW)
        made[family] = save_random(folder / family, config)
        export_transformers(ExportRequest(made[family], folder / family / "export", format=family))
    return made


@pytest.fixture(scope="session")
def made(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("evaluated")
    write_files(folder / "items")
    return Made(folder, run_on_ranks(_make, 1, folder, small_data)[0])
