"""How many cases there are."""

import importlib
from pathlib import Path

from tests.hostile import cases


def test_more_than_two_thousand_cases_are_tried() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.hostile.{path.stem}")
    assert sum(cases.declared.values()) >= 2000
