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
"""longest CPU time of a case; the slowest right answer takes 0.1 s"""
WAITING = 12
"""times as long by the clock, for one that waits on a pipe or a socket: cores are shared"""
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
        Overdue: it took longer than `SECONDS` of CPU time, or waited.
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
    """Bounds for what runs inside: CPU time of this process, waiting for others too, and its addresses.

    A busy machine makes a test late and not its subject slow, so the clock has much more time than the processor.
    """

    def overdue(number: int, frame: FrameType | None) -> None:
        what = "of CPU time" if number == signal.SIGPROF else "by the clock"
        raise Overdue(f"it took longer than {seconds if number == signal.SIGPROF else WAITING * seconds} s {what}")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    former = {number: signal.signal(number, overdue) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * seconds)
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + memory, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in former.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _addresses() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - thousands of times, and 3 times faster
        return int(file.read().split()[0]) * resource.getpagesize()
