"""The long form of `tests.data_tools.streams.test_histories`."""

import pytest

from tests.data_tools.streams.test_histories import histories

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(1000, 1050))
def test_a_thousand_histories_in_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    histories(seed, 20, monkeypatch)
