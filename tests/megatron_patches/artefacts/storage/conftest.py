"""A checkpoint that is sent and fetched."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.manifest import Manifest
from tests.small_artefacts import RUN, make_checkpoint


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """The manifest of a whole checkpoint."""
    return make_checkpoint(tmp_path / "runs", 100)


@pytest.fixture
def folder(tmp_path: Path, manifest: Manifest) -> Path:
    """Where it lies."""
    return tmp_path / "runs" / RUN / "checkpoints" / "step-0000000100"
