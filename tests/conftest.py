"""Fixtures that several folders share."""

import pytest

from tests.small_training import SmallData, make_small_data


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """One small dataset for the whole session; tests only read it."""
    return make_small_data(tmp_path_factory.mktemp("small"))
