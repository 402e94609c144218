"""The short form of `make torture`."""

import random
from pathlib import Path

import pytest

from tests.torture.sync import ACTIONS, Round, on_full_disk, table, torture


def test_fifteen_rounds_lose_nothing() -> None:
    counted, lost = torture(rounds=15, seed=1)
    print(table(counted))
    assert lost == []
    assert sum(counted.values()) == 15
    assert any(what == "killed" for _, _, what in counted)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("size", [0, 20])
def test_a_full_disk_reaches_every_action_and_loses_nothing(
    action: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", "")  # the yard sets it, and this takes it back
    yard = Round(tmp_path, random.Random(2))
    prepare, act = ACTIONS[action]
    prepare(yard)
    assert on_full_disk(yard, act, after=0, size=size) == "said what was wrong"
    assert yard.losses() == []
    act(yard)
    assert yard.losses() == []
