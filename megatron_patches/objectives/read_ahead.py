"""Steps that are read ahead of the one that trains, in threads. Torch-free.

Two kinds of threads: one prepares every step that was asked for, in that order, and the workers read what is prepared.
All are daemons: Python waits at its exit for other threads, and a rank that failed must not wait for a file system, or
for other ranks, that do not answer.
"""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

Prepared = TypeVar("Prepared")
Read = TypeVar("Read")

NAME = "training-data"
"""of the threads"""
_PATIENCE = 5.0
"""seconds that closing waits for threads in all: a read from a slow file system takes one or two"""


class _Ordered(NamedTuple, Generic[Read]):
    step: int
    found: "Future[Read]"


class ReadAhead(Generic[Prepared, Read]):
    """Threads that start with the first step that is asked for.

    Args:
        prepare: called in one thread, for every step that was asked for, in that order: also for one that was
            cancelled meanwhile, so that ranks that ask for the same steps make the same calls. Once it has failed it
            is not called any more, and all that is asked for fails with its error.
        read: called in any of the workers, of a step and what was prepared for it.
        workers: threads that read.
    """

    def __init__(self, prepare: Callable[[int], Prepared], read: Callable[[int, Prepared], Read], workers: int) -> None:
        self._prepare = prepare
        self._read = read
        self._workers = workers
        self._threads: list[Thread] = []
        self._ordered: SimpleQueue[_Ordered[Read] | None] = SimpleQueue()
        self._prepared: SimpleQueue[tuple[_Ordered[Read], Prepared] | None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._closed = False

    def order(self, step: int) -> "Future[Read]":
        """Have a step read; the future has what was read, or the error that it ended with."""
        assert not self._closed, "after it was closed nothing is read"
        if not self._threads:
            self._start()
        found: Future[Read] = Future()
        self._ordered.put(_Ordered(step, found))
        return found

    def rest(self) -> None:
        """End the threads, once all that was asked for is prepared and, where it is not cancelled, read. The next order
        starts them again.
        """
        self._end(None)

    def close(self) -> None:
        """Prepare and read nothing more; what is being done is waited for, but no longer than a few seconds."""
        self._closed = True
        self._end(_PATIENCE)

    def _start(self) -> None:
        self._failure = None
        names = [NAME, *(f"{NAME}-{number}" for number in range(self._workers))]
        for name, work in zip(names, [self._deal, *[self._serve] * self._workers], strict=True):
            self._threads.append(Thread(target=work, name=name, daemon=True))
            self._threads[-1].start()

    def _end(self, patience: float | None) -> None:
        threads, self._threads = self._threads, []
        if not threads:
            return
        self._ordered.put(None)
        deadline = None if patience is None else monotonic() + patience
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - monotonic()))

    def _deal(self) -> None:
        while self._deal_one(self._ordered.get()):
            pass  # between two steps nothing here holds what was read
        for _ in range(self._workers):
            self._prepared.put(None)

    def _deal_one(self, ordered: _Ordered[Read] | None) -> bool:
        if ordered is None:
            return False
        if self._closed:
            ordered.found.cancel()
        elif self._failure is None:
            try:
                self._prepared.put((ordered, self._prepare(ordered.step)))
                return True
            except BaseException as error:  # noqa: BLE001  it is raised where the step is waited for
                self._failure = error
        if self._failure is not None and ordered.found.set_running_or_notify_cancel():
            ordered.found.set_exception(self._failure)
        return True

    def _serve(self) -> None:
        while self._serve_one(self._prepared.get()):
            pass

    def _serve_one(self, prepared: tuple[_Ordered[Read], Prepared] | None) -> bool:
        if prepared is None:
            return False
        (step, found), content = prepared
        if self._closed:
            found.cancel()
        if found.set_running_or_notify_cancel():
            try:
                found.set_result(self._read(step, content))
            except BaseException as error:  # noqa: BLE001  it is raised where the step is waited for
                found.set_exception(error)
        return True
