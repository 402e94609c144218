"""An inventory of small artefacts: a tokenizer, a dataset made with it, and a run's checkpoints trained on that."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.manifest import Manifest
from tests.small_artefacts import RUN, make_artefact, make_checkpoint


@dataclass(frozen=True)
class SmallInventory:
    """Folders and manifests of the artefacts in them."""

    runs: Path
    data: Path
    tokenizer: Manifest
    dataset: Manifest
    checkpoints: list[Manifest]

    def find(self, name: str) -> Artefact:
        """One artefact, as the catalogue knows it now."""
        with open_catalogue(self.runs, self.data) as catalogue:
            return resolve_artefact(name, catalogue)

    def ask(self, where: str = "1", *values: object) -> list[Artefact]:
        """Artefacts by a condition."""
        with open_catalogue(self.runs, self.data) as catalogue:
            return catalogue.artefacts(where, values, "ORDER BY run, step, manifest")

    def checkpoint(self, step: int) -> Path:
        """Folder of a checkpoint."""
        return self.runs / RUN / "checkpoints" / f"step-{step:010d}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's catalogue, or the user's."""
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def inventory(tmp_path: Path) -> SmallInventory:
    """A fresh one for each test."""
    runs, data = tmp_path / "runs", tmp_path / "data"
    tokenizer = make_artefact(data / "mine" / "tokenizer", "tokenizer", {"tokenizer.json": b"{}"}, {})
    dataset = make_artefact(data / "mine" / "text", "dataset", {"text.bin": b"0123"}, {"tokens": 4}, (tokenizer.id,))
    parents = (dataset.id, tokenizer.id)
    checkpoints = [
        make_checkpoint(runs, step, parents=parents, validation_loss=4.0 - step / 1000) for step in (100, 200, 300)
    ]
    return SmallInventory(runs, data, tokenizer, dataset, checkpoints)
