"""Copies of the checkout that a test may damage."""

import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """train/ and the shared ending of job scripts; enough for everything that is given a checkout."""
    copy = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "train", copy / "train")
    (copy / "slurm").mkdir()
    shutil.copy(CHECKOUT / "slurm" / "script_ending.sh", copy / "slurm")
    return copy


@pytest.fixture
def whole_checkout(checkout: Path) -> Path:
    """The same with the code, so that its own `tools/runs` can be executed."""
    for folder in ("data_tools", "megatron_patches", "tools"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / folder, checkout / folder, symlinks=True, ignore=ignore)
    return checkout
