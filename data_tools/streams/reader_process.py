"""The process that reads text for a run: `python -m data_tools.streams.reader_process CONTROL DATA`.

CONTROL and DATA are numbers of pipes. A `Beginning` comes over the first, which stays open as long as samples are
wanted; samples and the error that ends them go over the second.
"""

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread
from time import sleep
from types import FrameType

from data_tools.streams.messages import Beginning, receive_beginning, send_chunk, send_error
from data_tools.streams.text_stream import TextStream

SECONDS_TO_END = 1.0
"""for a part or a pool to put its things away, once nobody wants samples"""


def main(control: Connection, data: Connection) -> None:
    """Reads until nobody wants more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    signal.signal(signal.SIGTERM, _stop)
    with suppress(BrokenPipeError, EOFError):
        try:
            _read(receive_beginning(control), control, data)
        except (BrokenPipeError, EOFError):
            raise
        except Exception as error:  # noqa: BLE001  told to the parent, who raises it
            send_error(data, error)


def _read(beginning: Beginning, control: Connection, data: Connection) -> None:
    request = beginning.request
    with request.open_encoding(beginning.workers) as encode:
        Thread(target=_end_with, args=(control,), daemon=True).start()  # after the forks of workers
        stream = TextStream(request.open_parts(), encode, request.settings, ahead=True)
        for chunk in stream.chunks(beginning.start):
            try:
                send_chunk(data, chunk)
            except BrokenPipeError:
                _stop(signal.SIGTERM, None)


def _end_with(control: Connection) -> None:
    """Ends the process when the other end of the pipe is closed, which the end of the parent does too."""
    with suppress(EOFError, OSError):
        control.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)
    sleep(SECONDS_TO_END)
    os._exit(0)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while generators close, Python would print it and go on
    raise SystemExit(0)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1]), writable=False), Connection(int(sys.argv[2]), readable=False))
