"""The short form: two rounds of each fault but one."""

from tests.torture.checkpoints import FAULTS, table, torture


def test_nothing_is_lost_silently() -> None:
    tallies = torture(rounds=20, seed=7)
    print(table(tallies))
    assert set(tallies) == set(FAULTS)
    assert [text for tally in tallies.values() for text in tally.silent] == []
    assert sum(tally.fell_back + tally.refused for tally in tallies.values()) > 0, "no damage was met"
    assert sum(tally.saved for tally in tallies.values()) > 0, "nothing was saved"
