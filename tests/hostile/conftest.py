"""A place for each case, with a tree beside it that must stay as it is."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.canary import Place


@pytest.fixture
def new_place(tmp_path: Path) -> Callable[[], Place]:
    """A fresh place for each example of a property-based test."""
    numbers = itertools.count()

    def make() -> Place:
        root = tmp_path / f"{next(numbers):05d}"
        root.mkdir()
        return Place(root)

    return make
