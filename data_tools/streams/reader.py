"""A stream that is read in a process of its own, ahead of what is taken."""

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from threading import Condition, Thread

from data_tools.streams.cursor import Chunks, Cursor
from data_tools.streams.messages import Beginning, StreamRequest, receive
from data_tools.streams.position import StreamPosition
from data_tools.streams.text_stream import Chunk
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from slurm.parent import command_ending_with_it

PROCESS = "data_tools.streams.reader_process"
SECONDS_TO_END = 1.5
"""that a process has once nobody wants its samples; then it is killed"""
_CLOSED = "the reader of text was closed"


class StreamReader(Cursor):
    """See `Cursor`. It reads from the start on at once.

    Args:
        start: where the first sample that is taken is expected.
        prefetch_samples: how many samples are held ready ahead of those that are taken.
        workers: processes that tokenize, beside the one that reads.
        known: further positions of the stream, such as those in checkpoints.
    """

    def __init__(
        self,
        request: StreamRequest,
        start: StreamPosition,
        prefetch_samples: int,
        workers: int,
        known: Iterable[StreamPosition] = (),
    ) -> None:
        super().__init__((start, *known))
        self._request = request
        self._prefetch = prefetch_samples
        self._workers = workers
        self._begin(start)

    def _open(self, position: StreamPosition) -> Chunks:
        return _ReadAhead(Beginning(self._request, position, self._workers), self._prefetch)


class _ReadAhead:
    """A process, and a thread that holds what it sends, up to a number of samples.

    The thread starts it, too: a process ends with the thread that started it, and this one lives as long.
    """

    def __init__(self, beginning: Beginning, prefetch_samples: int) -> None:
        self._source = printable(beginning.request.settings.source)
        self._message = pickle.dumps(beginning)
        self._prefetch = prefetch_samples
        self._changed = Condition()
        self._chunks: deque[Chunk] = deque()
        self._held = 0
        """samples in them"""
        self._error: TrainyardError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._control_read, self._control = Pipe(duplex=False)
        self._thread = Thread(target=self._run, name="reads text ahead", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the process and those that it started, within two seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._process is not None:
                self._process.terminate()  # other processes may have a copy of the pipe whose end it watches
        self._thread.join(SECONDS_TO_END)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
        self._thread.join()
        self._control.close()

    def __next__(self) -> Chunk:
        """What comes next.

        Raises:
            TrainyardError: what the process raised, after what it had read before; or it died.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._error is not None)
            if not self._chunks:
                assert self._error is not None
                raise self._error
            chunk = self._chunks.popleft()
            self._held -= _samples(chunk)
            self._changed.notify_all()
            return chunk

    def _run(self) -> None:
        try:
            error = self._start_and_receive(*Pipe(duplex=False))
        except Exception as why:  # noqa: BLE001  the process that waits must be told
            error = TrainyardError(f"text of source {self._source} cannot be read: {type(why).__name__}: {why}")
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _start_and_receive(self, data: Connection, data_write: Connection) -> TrainyardError:
        try:
            with self._changed:
                if self._closed:
                    return TrainyardError(_CLOSED)
                self._process = process = self._start(data_write)
        finally:
            data_write.close()
            self._control_read.close()
        try:
            return self._receive_all(data, process)
        finally:
            data.close()
            _end(process)

    def _start(self, data_write: Connection) -> "subprocess.Popen[bytes]":
        passed = (self._control_read.fileno(), data_write.fileno())
        command = [sys.executable, "-P", "-m", PROCESS, *map(str, passed)]
        # the request names functions of modules that this process found
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return subprocess.Popen(
            command_ending_with_it(command), pass_fds=passed, env=environment, stdin=subprocess.DEVNULL
        )

    def _receive_all(self, data: Connection, process: "subprocess.Popen[bytes]") -> TrainyardError:
        """Holds what comes until it is closed; the error that ends it."""
        alive = os.pidfd_open(process.pid)
        try:
            self._control.send_bytes(self._message)
            while True:
                ready = wait([data, alive])
                if data not in ready:
                    return self._death(process)
                received = receive(data)
                if isinstance(received, TrainyardError):
                    return received
                if not self._hold(received):
                    return TrainyardError(_CLOSED)
        except (EOFError, OSError):
            return self._death(process)
        finally:
            os.close(alive)

    def _hold(self, chunk: Chunk) -> bool:
        """Waits until there is room after it; whether more is wanted."""
        with self._changed:
            self._chunks.append(chunk)
            self._held += _samples(chunk)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._held < max(1, self._prefetch))
            return not self._closed

    def _death(self, process: "subprocess.Popen[bytes]") -> TrainyardError:
        """What to say of a process that ended and said nothing."""
        _end(process)
        code = process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return TrainyardError(
            f"the process that reads text of source {self._source} {how}, most often for "
            "lack of memory; its own messages are above. Start the run again: it goes on where it was. If it "
            "happens again, give fewer workers, or a smaller shuffle_documents"
        )


def _samples(chunk: Chunk) -> int:
    return len(next(iter(chunk.arrays.values()), ()))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Waits for a process that is ending; not for long."""
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
