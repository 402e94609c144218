"""Fixtures that several folders share, and what holds for all tests: their order, and which of them are slow."""

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.order import place
from tests.quickness import complaint, is_slow, watch

# What imports NumPy comes later, after `use_own_cpus`: OpenBLAS looks once how many CPUs the process has.
if TYPE_CHECKING:
    from xdist.remote import Producer

    from tests.sharing import FileScheduling
    from tests.small_training import SmallData

# The same examples in every run: a change passes or fails by itself. HYPOTHESIS_PROFILE=default looks for new ones.
# No deadline: an example that waits for a busy machine is not wrong.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        from tests.sharing import use_own_cpus

        use_own_cpus(config.workerinput)


@pytest.hookimpl(optionalhook=True)  # pytest runs without pytest-xdist too
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "FileScheduling":
    from tests.sharing import FileScheduling

    return FileScheduling(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest itself leaves out what is not selected by its marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item):
            item.add_marker("slow")
    items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    watch(None if item.get_closest_marker("slow") else item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    said = complaint()
    watch(None)
    if said:
        pytest.fail(said, pytrace=False)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> "SmallData":
    """One small dataset for the whole session; tests only read it."""
    from tests.small_training import make_small_data

    return make_small_data(tmp_path_factory.mktemp("small"))
