"""Which tests are slow: those that start a process or listen on a port. `make test-fast` leaves them out.

Most are recognised by the names that they use; one that starts a process in another way has to be marked
(`@pytest.mark.slow`), and fails until it is.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

STARTERS = {
    "Cluster", "Ranks", "ThreadedMotoServer", "ThreadingHTTPServer", "multiprocessing", "run_on_ranks", "subprocess",
}  # fmt: skip
"""what starts processes and servers, where a test, a fixture or a function of the tests that they call names it"""
STARTS = {"os.fork", "os.posix_spawn", "os.system", "socket.bind", "subprocess.Popen", "tests.ranks"}
"""Python's own names of these events, and that of `tests/ranks.py`"""
INSTANT = {"bash", "git", "squeue", "uname"}
"""programs that any test may start: they take milliseconds"""
INSTANT_STARTS = {("os.fork", "data_tools.encoding.worker"), ("socket.bind", "urllib3.util.connection")}
"""events that any test may cause, and the modules that cause them: forks that encode text, in milliseconds, and a look
for IPv6 at urllib3's import, which transformers brings
"""

_watched: list[str] = []
"""the name of the test at hand, then what it has started"""


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is marked, or is seen to start processes."""
    if item.get_closest_marker("slow") or item.get_closest_marker("slurm"):
        return True
    if not isinstance(item, pytest.Function):
        return False
    fixtures = [each[-1].func for each in item._fixtureinfo.name2fixturedefs.values()]
    seen: set[FunctionType] = set()
    return any(_starts(function, seen) for function in (item.function, *fixtures))


def _starts(function: Any, seen: set[FunctionType]) -> bool:
    function = getattr(function, "__func__", function)  # of a method
    function = getattr(function, "__wrapped__", function)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if not isinstance(function, FunctionType) or function in seen or not function.__module__.startswith("tests."):
        return False
    seen.add(function)
    names = set(_names(function.__code__))
    return bool(names & STARTERS) or any(_starts(function.__globals__.get(name), seen) for name in names)


def _names(code: CodeType) -> Iterator[str]:
    """What the code of a function and of those inside it names."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def watch(name: str | None) -> None:
    """From now on, what is started is of this test; None: may be started."""
    if not _watched:
        sys.addaudithook(_listen)  # it stays for good: Python has no way to take it back
        _watched.append("")
    _watched[:] = [name or ""]


def complaint() -> str | None:
    """What the test has started that may not, with the remedy."""
    _, *started = _watched
    return f"starts {', '.join(started)}: mark it with @pytest.mark.slow" if started else None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in STARTS or not _watched[0]:
        return
    if (event, sys._getframe(1).f_globals.get("__name__")) not in INSTANT_STARTS:
        program = Path(str(arguments[0])).name if event == "subprocess.Popen" else event
        if program not in INSTANT:
            _watched.append(program)
