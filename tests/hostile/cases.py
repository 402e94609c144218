"""One case: an action that must end in a named error or a result, within its bounds."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from hypothesis import HealthCheck, settings

from megatron_patches.errors import TrainyardError

SECONDS = 5.0
"""longest time of a case; the slowest right answer takes 0.1 s on an idle core, and cores are shared"""
MEMORY_BYTES = 1 << 30
"""what a case may add to the process's addresses: ten times the largest that a parser here may hold"""
MESSAGE_CHARACTERS = 10_000
"""longest message: thirty problems of a line or three"""
TIMES = int(os.environ.get("HOSTILE_TIMES", "1"))
"""`python -m tests.hostile` tries so many times the cases of `make test`"""

declared: dict[str, int] = {}
"""cases of each test, by its name"""

Test = TypeVar("Test", bound=Callable[..., None])
Result = TypeVar("Result")


class Overdue(BaseException):
    """A case ran past its time; no `except Exception` may hide it."""


def cases(number: int) -> Callable[[Test], Test]:
    """Gives a property-based test its number of examples, `TIMES` times as many in a long form."""

    def decorate(test: Test) -> Test:
        declared[f"{test.__module__}.{test.__qualname__}"] = number
        suppressed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
        chosen = settings(max_examples=number * TIMES, deadline=None, suppress_health_check=suppressed)
        return chosen(test)

    return decorate


def attempt(action: Callable[[], Result]) -> Result | TrainyardError:
    """What an action gives, or the named error that it ends in; anything else fails the test.

    Raises:
        AssertionError: the message is empty, or longer than people read.
        Overdue: it took longer than `SECONDS`.
    """
    try:
        with bounded():
            return action()
    except TrainyardError as error:
        message = str(error)
        assert message.strip(), f"{type(error).__name__} without a message"
        assert len(message) <= MESSAGE_CHARACTERS, f"a message of {len(message):,} characters: {message[:200]} ..."
        return error


@contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY_BYTES) -> Iterator[None]:
    """Bounds for what runs inside: time, and addresses of this process."""

    def overdue(number: int, frame: FrameType | None) -> None:
        raise Overdue(f"it took longer than {seconds} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + memory, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _addresses() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - thousands of times, and 3 times faster
        return int(file.read().split()[0]) * resource.getpagesize()
