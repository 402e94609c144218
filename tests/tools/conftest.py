"""Copies of the checkout that a test may damage."""

import shutil
from pathlib import Path

import pytest

from tools.pages.render import render
from tools.pages.train_table import write_table
from tools.run_files.catalogue import describe_all

CHECKOUT = Path(__file__).resolve().parents[2]
FAMILIES = ("tr0-stdlib-gpt", "tr3-1B3-baseline", "tr20-125M-domain-tokens")
"""a few, since what a test asks of one run costs as much for each; tests/train holds all of them to the rules"""


@pytest.fixture(scope="session")
def small_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with some families and the shared ending of job scripts, never changed: making its pages takes 0.3 s."""
    folder = tmp_path_factory.mktemp("checkout") / "checkout"
    others = [path.name for path in (CHECKOUT / "train").iterdir() if path.is_dir() and path.name not in FAMILIES]
    shutil.copytree(CHECKOUT / "train", folder / "train", ignore=shutil.ignore_patterns(*others))
    write_table(folder / "train" / "README.md", describe_all(folder)[0])
    render(folder)
    (folder / "slurm").mkdir()
    shutil.copy(CHECKOUT / "slurm" / "script_ending.sh", folder / "slurm")
    return folder


@pytest.fixture
def checkout(small_checkout: Path, tmp_path: Path) -> Path:
    """A copy of it; enough for what is given a checkout."""
    return shutil.copytree(small_checkout, tmp_path / "checkout")


@pytest.fixture
def whole_checkout(checkout: Path) -> Path:
    """The same with the code, so that its own `tools/runs` can be executed."""
    for folder in ("data_tools", "megatron_patches", "tools"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / folder, checkout / folder, symlinks=True, ignore=ignore)
    return checkout
