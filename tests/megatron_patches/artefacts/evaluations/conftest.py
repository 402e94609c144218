"""A run's folder with a checkpoint."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import RunFolder
from tests.small_artefacts import RUN, make_checkpoint


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here looks at what a power cut leaves, and waiting for the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Its folder is there once something was written into it."""
    return RunFolder(tmp_path / RUN)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Manifest:
    """Of step 100."""
    return make_checkpoint(tmp_path, 100)
