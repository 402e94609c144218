"""Slow tests are recognised, and those that are not recognised fail."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.quickness import complaint, is_slow, watch
from tests.ranks import run_on_ranks
from tests.slurm.cluster import Cluster


def by_itself() -> None:
    subprocess.run(["true"], check=True)


def by_a_function_of_its_own() -> None:
    def inner() -> None:
        by_itself()

    inner()


def by_ranks() -> list[int]:
    return [rank + 1 for rank in run_on_ranks(int, 1)]


@pytest.fixture
def started() -> None:
    by_ranks()


def by_a_fixture(started: None) -> None:
    pass


def by_the_cluster() -> None:
    Cluster.stop  # noqa: B018


@pytest.mark.slow
def by_its_mark() -> None:
    pass


def not_at_all(small_data: object) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "slow"),
    [
        (by_itself, True), (by_a_function_of_its_own, True), (by_ranks, True), (by_a_fixture, True),
        (by_the_cluster, True), (by_its_mark, True), (not_at_all, False),
    ],
)  # fmt: skip
def test_how_slow_tests_are_recognised(
    function: Callable[..., object], slow: bool, request: pytest.FixtureRequest
) -> None:
    item = pytest.Function.from_parent(request.node.parent, name="test", callobj=function)
    assert is_slow(item) == slow


def test_what_a_test_starts_is_held_against_it() -> None:
    watch("a test")
    for program in ("/bin/dd", "/usr/bin/git"):
        sys.audit("subprocess.Popen", program, [program], None, None)
    assert complaint() == "starts dd: mark it with @pytest.mark.slow"
    watch(None)
    sys.audit("subprocess.Popen", "/bin/dd", ["/bin/dd"], None, None)
    assert complaint() is None
