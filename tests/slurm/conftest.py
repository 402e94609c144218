"""The cluster that the tests of this folder share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.checkout import SmallCheckout
from tests.slurm.cluster import Cluster, reason_not_to_start


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of a real SLURM; skipped by name where it is not installed, failed where TRAINYARD_REQUIRE_SLURM=1."""
    reason = reason_not_to_start()
    if reason and os.environ.get("TRAINYARD_REQUIRE_SLURM") == "1":
        pytest.fail(f"TRAINYARD_REQUIRE_SLURM=1, but {reason}")
    if reason:
        pytest.skip(reason)
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.stop()


@pytest.fixture
def checkout(tmp_path: Path) -> SmallCheckout:
    return SmallCheckout(tmp_path / "checkout")
