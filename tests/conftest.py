"""Fixtures that several folders share."""

import os

import pytest
from hypothesis import settings

from tests.small_training import SmallData, make_small_data

# The same examples in every run: a change passes or fails by itself. HYPOTHESIS_PROFILE=default looks for new ones.
# No deadline: an example that waits for a busy machine is not wrong.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """One small dataset for the whole session; tests only read it."""
    return make_small_data(tmp_path_factory.mktemp("small"))
