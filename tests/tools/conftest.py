"""Copies of the checkout that a test may damage."""

import shutil
from pathlib import Path

import pytest

from tools.inventory_render import render
from tools.runs_catalogue import describe_all
from tools.runs_table import write_table

CHECKOUT = Path(__file__).resolve().parents[2]
FAMILIES = ("tr0-stdlib-gpt", "tr3-1B3-baseline", "tr20-125M-domain-tokens")
"""a few, since what a test asks of one run costs as much for each; tests/train holds all of them to the rules"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """train/ with some families and the shared ending of job scripts; enough for what is given a checkout."""
    copy = tmp_path / "checkout"
    others = [path.name for path in (CHECKOUT / "train").iterdir() if path.is_dir() and path.name not in FAMILIES]
    shutil.copytree(CHECKOUT / "train", copy / "train", ignore=shutil.ignore_patterns(*others))
    write_table(copy / "train" / "README.md", describe_all(copy)[0])
    render(copy)
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
