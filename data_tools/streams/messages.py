"""What a reader process and the one that started it say to each other, over pipes that only they have.

Requests and errors go by pickle, which is safe between a process and its own child; samples go as bytes.
"""

import json
import pickle
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from data_tools.reading.block import Part
from data_tools.streams.position import StreamPosition
from data_tools.streams.settings import Encode, StreamSettings
from data_tools.streams.text_stream import Chunk
from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class StreamRequest:
    """What a reader process does. It gets this by pickle, so that all of it is plain: no closures, no open files."""

    settings: StreamSettings
    open_parts: Callable[[], Sequence[Part]]
    """such as functools.partial(parts_of, ...)"""
    open_encoding: Callable[[int], AbstractContextManager[Encode]]
    """takes the number of workers; entered before the process has threads"""


@dataclass(frozen=True)
class Beginning:
    """What a reader process is told once."""

    request: StreamRequest
    start: StreamPosition
    workers: int


def receive_beginning(pipe: Connection) -> Beginning:
    """Raises EOFError where nobody writes any more."""
    beginning = pickle.loads(pipe.recv_bytes())
    assert isinstance(beginning, Beginning)
    return beginning


def send_chunk(pipe: Connection, chunk: Chunk) -> None:
    """Raises OSError where nobody reads."""
    behind = None if chunk.behind is None else chunk.behind.model_dump()
    names = list(chunk.arrays)
    shape = next(iter(chunk.arrays.values())).shape if names else ()
    pipe.send_bytes(json.dumps({"first": chunk.first, "behind": behind, "names": names, "shape": shape}).encode())
    for array in chunk.arrays.values():
        pipe.send_bytes(np.ascontiguousarray(array).data.cast("B"))


def send_error(pipe: Connection, error: Exception) -> None:
    """Raises OSError where nobody reads."""
    pipe.send_bytes(json.dumps({"error": True}).encode())
    pipe.send_bytes(pickle.dumps(_plain(error)))


def receive(pipe: Connection) -> Chunk | TrainyardError:
    """The next samples, or the error that ends them; raises EOFError where nobody writes any more."""
    header: dict[str, Any] = json.loads(pipe.recv_bytes())
    if "error" in header:
        error = pickle.loads(pipe.recv_bytes())
        assert isinstance(error, TrainyardError)
        return error
    shape = header["shape"]
    arrays = {name: np.frombuffer(pipe.recv_bytes(), dtype=np.int32).reshape(shape) for name in header["names"]}
    behind = header["behind"]
    return Chunk(header["first"], arrays, None if behind is None else StreamPosition.model_validate(behind))


def _plain(error: Exception) -> TrainyardError:
    """The same error where it survives a pickle, else one that says the same."""
    if not isinstance(error, TrainyardError):
        told = "".join(traceback.format_exception(error))
        return TrainyardError(f"a reader of text failed, which is a mistake in Trainyard:\n{told}")
    try:
        copied = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  an exception's own way of being pickled can fail in any way
        return TrainyardError(str(error))
    return error if type(copied) is type(error) and str(copied) == str(error) else TrainyardError(str(error))
