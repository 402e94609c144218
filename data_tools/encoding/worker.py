"""One process that encodes: forked, sent blocks, ended with the one that forked it."""

import contextlib
import gc
import os
import pickle
import signal
import struct
import traceback
from collections.abc import Iterator, Sequence
from pickle import PickleBuffer
from typing import NoReturn

from data_tools.encoding.block_encoder import BlockEncoder
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.slots import Slot
from data_tools.reading.block import Block
from megatron_patches.errors import TrainyardError
from slurm.parent import ask_for_signal

MESSAGE = struct.Struct("<qii")
"""number of a block, its slot, and a flag: of a request whether the reference encodes, of a reply whether it failed"""
_IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""what a terminal or a scheduler sends to all processes: the one that forked this one decides"""


class Worker:
    """The process, as the one that forked it sees it."""

    def __init__(self, pid: int, requests: int, replies: int) -> None:
        self.pid = pid
        self.replies = replies
        self.pending = 0
        """blocks that it has"""
        self._requests = requests

    def send(self, number: int, slot: int, by_reference: bool) -> None:
        """Has it encode the block in a slot.

        Raises:
            TrainyardError: it is dead.
        """
        self.pending += 1
        try:
            os.write(self._requests, MESSAGE.pack(number, slot, by_reference))
        except BrokenPipeError:
            self.raise_death()

    def files(self) -> tuple[int, int]:
        """This end of its pipes."""
        return self._requests, self.replies

    def received(self) -> list[tuple[int, int, int]]:
        """The replies that are there; waits for the first.

        Raises:
            TrainyardError: it died.
        """
        read = os.read(self.replies, 256 * MESSAGE.size)
        if not read:
            self.raise_death()
        messages = list(MESSAGE.iter_unpack(read))
        self.pending -= len(messages)
        return messages

    def raise_death(self) -> NoReturn:
        """Raises TrainyardError with how the process ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}, most often for lack of memory; use fewer --workers"
        else:
            how = f"ended with exit code {code}; what it printed says why"
        raise TrainyardError(f"a process that encodes {how}")

    def end(self) -> None:
        """Kills it, if it lives: it has nothing to save."""
        os.close(self._requests)
        os.close(self.replies)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def fork_worker(encoder: BlockEncoder, slots: Sequence[Slot], others: Sequence[Worker]) -> Worker:
    """Starts a process that encodes what is in the slots.

    Args:
        others: workers that were forked before, whose pipes are none of the new one's.
    """
    parent = os.getpid()
    requests_read, requests_write = os.pipe()
    replies_read, replies_write = os.pipe()
    with _libraries_alone():
        pid = os.fork()
    if pid:
        os.close(requests_read)
        os.close(replies_write)
        return Worker(pid, requests_write, replies_read)
    code = 1
    try:
        ask_for_signal(signal.SIGKILL)
        if os.getppid() == parent:
            _become_worker([requests_write, replies_read, *(file for each in others for file in each.files())])
            _work(encoder, slots, requests_read, replies_write)
            code = 0
    except BaseException:  # noqa: BLE001 (nothing of the forked program may run on)
        traceback.print_exc()
    finally:
        os._exit(code)


@contextlib.contextmanager
def _libraries_alone() -> Iterator[None]:
    """In a fork the tokenizers library has none of its threads; with this variable it does not warn."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _become_worker(not_its_own: Sequence[int]) -> None:
    gc.freeze()  # a collection would touch, and so copy, the memory of all objects of the program
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for file in not_its_own:
        os.close(file)


def _work(encoder: BlockEncoder, slots: Sequence[Slot], requests: int, replies: int) -> None:
    while read := os.read(requests, MESSAGE.size):
        number, slot, by_reference = MESSAGE.unpack(read)
        failed = False
        try:
            result: EncodedBlock | Exception = encoder.encode(slots[slot].take(writable=False), bool(by_reference))
        except Exception as error:  # noqa: BLE001 (it is raised where the block was asked for)
            result, failed = _sent(error), True
        slots[slot].put(result)
        result = None  # type: ignore[assignment]  # before the next block is read
        os.write(replies, MESSAGE.pack(number, slot, failed))


def _sent(error: Exception) -> Exception:
    """The exception as it can be sent: itself with its traceback as a note, or its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (whatever its pickling raises)
        copy = None
    if not isinstance(copy, Exception):
        return RuntimeError(f"a process that encodes failed:\n{trace}")
    copy.add_note(f"in a process that encodes:\n{trace}")
    return copy


def sendable(block: Block) -> Block:
    """The block with its content as a buffer, which a slot holds without a copy of its own."""
    return block._replace(content=PickleBuffer(block.content))  # type: ignore[arg-type]  # bytes at the other end
