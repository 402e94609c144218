"""The short form of `make torture`."""

from tests.torture.sync import table, torture


def test_fifteen_rounds_lose_nothing() -> None:
    counted, lost = torture(rounds=15, seed=1)
    print(table(counted))
    assert lost == []
    assert sum(counted.values()) == 15
    assert any(what == "killed" for _, _, what in counted)
