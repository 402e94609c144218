"""Blocks to token ids in worker processes, in order."""

import select
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import count
from types import TracebackType

from data_tools.encoding.block_encoder import BlockEncoder
from data_tools.encoding.choice import choose_library
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.libraries import Reference
from data_tools.encoding.proof import EncodingProof
from data_tools.encoding.recipe import Recipe
from data_tools.encoding.slots import Slot
from data_tools.encoding.worker import Worker, fork_worker, sendable
from data_tools.reading.block import Block
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError

AHEAD = 8
"""blocks for each worker that are read, encoded or waiting for their turn: one that takes ten times as long, as those
at a part's beginning do, which are compared, keeps no other worker idle"""
_AT_A_TIME = 2
"""blocks that a worker has: one in work, one at hand when that is done"""
_NONE = Block("lines", b"", "", "line", 0, 0, {}, 0)
"""stands for the block that could not be read"""


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


class EncodingPool:
    """Worker processes that encode.

    They are forked when the pool is entered, from the thread that enters it, and end with that thread. So enter it
    before threads are started that may hold a lock (those that read files, torch's), or in a fresh process.

    Args:
        workers: processes; what comes out does not depend on their number.
        tokenizer: the recipe's, if it is loaded already (with the recipe's `parse_special`).
        tell: hears why a library was not taken.

    Raises:
        TrainyardError: the tokenizer cannot be had, or the number of workers is none.
    """

    def __init__(
        self,
        recipe: Recipe,
        workers: int,
        tokenizer: Tokenizer | None = None,
        tell: Callable[[str], None] = _to_stderr,
    ) -> None:
        if workers < 1:
            raise TrainyardError(f"workers is {workers}; at least one process must tokenize")
        # whether a tokenizer may be used was asked before
        self.tokenizer = tokenizer or load_tokenizer(recipe.tokenizer, True, recipe.parse_special)
        library = choose_library(self.tokenizer, recipe.library, tell)
        reference = Reference(self.tokenizer)
        self._encoder = BlockEncoder(recipe, self.tokenizer, library)
        self._nothing_compared = self._proof = EncodingProof(
            library=library.name, version=library.version, reference=f"{reference.name} {reference.version}"
        )
        self._number_of_workers = workers
        self._workers: list[Worker] = []
        self._slots: list[Slot] = []
        self._free: list[int] = []
        self._unsent: deque[tuple[int, int, bool]] = deque()
        self._results: dict[int, EncodedBlock | Exception] = {}
        self._numbers = count()
        self._begin = 0
        self._poll = select.poll()

    @property
    def proof(self) -> EncodingProof:
        """What encodes, and what was compared up to the last block that came out."""
        return self._proof

    def encode(
        self, blocks: Iterable[Block], by_reference: Collection[str] = (), after: EncodingProof | None = None
    ) -> Iterator[tuple[Block, EncodedBlock]]:
        """The blocks, without their content, and their ids, in order. One call at a time.

        At `DifferentIds` the caller drops what it has of the part `error.origin`, and calls this again with the part
        from its beginning (and the parts after it), `by_reference` with the origin added, and `after` the proof as it
        was in front of the part.

        Args:
            by_reference: origins of parts that the reference encodes.
            after: the proof to go on from, of an earlier call or process; None: nothing was compared.

        Raises:
            DifferentIds: the library gives other ids than the reference.
            TrainyardError: a worker died, or a text cannot be encoded.
        """
        self._proof = (after or self._nothing_compared).redone(by_reference)
        source, waiting = iter(blocks), deque[tuple[int, Block]]()
        try:
            while self._fill(source, waiting, by_reference) or waiting:
                number, block = waiting.popleft()
                while number not in self._results:
                    self._collect(None)
                result = self._results.pop(number)
                if isinstance(result, Exception):
                    raise result
                self._proof = self._proof.after(result.compared)
                yield block, result
        finally:
            self._forget()

    def _fill(
        self, source: Iterator[Block], waiting: "deque[tuple[int, Block]]", by_reference: Collection[str]
    ) -> bool:
        """Sends blocks until enough are on the way or the first of them is encoded; False: there are no more."""
        while len(waiting) < len(self._slots) and not (waiting and waiting[0][0] in self._results):
            number = next(self._numbers)
            try:
                block = next(source, None)
            except Exception as error:  # noqa: BLE001 (it is raised after the blocks that were read before)
                self._results[number] = error
                waiting.append((number, _NONE))
                return False
            if block is None:
                return False
            waiting.append((number, block._replace(content=b"")))
            while not self._free:  # what an earlier call left is on the way
                self._collect(None)
            slot = self._free.pop()
            self._slots[slot].put(sendable(block))
            self._unsent.append((number, slot, block.origin in by_reference))
            self._send()
            self._collect(0)
        return True

    def _send(self) -> None:
        while self._unsent and (worker := min(self._workers, key=lambda each: each.pending)).pending < _AT_A_TIME:
            worker.send(*self._unsent.popleft())

    def _collect(self, milliseconds: int | None) -> None:
        """Takes what workers are done with; None waits until one is."""
        ready = {file for file, _ in self._poll.poll(milliseconds)}
        for worker in self._workers:
            if worker.replies not in ready:
                continue
            for number, slot, _ in worker.received():
                result = self._slots[slot].take(writable=True)
                self._free.append(slot)
                if number >= self._begin:
                    self._results[number] = result
        self._send()

    def _forget(self) -> None:
        """What is on the way belongs to no one any more."""
        self._begin = next(self._numbers)
        self._free += [slot for _, slot, _ in self._unsent]
        self._unsent.clear()
        self._results.clear()

    def __enter__(self) -> "EncodingPool":
        self._slots = [Slot() for _ in range(AHEAD * self._number_of_workers)]
        self._free = list(range(len(self._slots)))
        try:
            for _ in range(self._number_of_workers):
                self._workers.append(fork_worker(self._encoder, self._slots, self._workers))
                self._poll.register(self._workers[-1].replies, select.POLLIN)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        while self._workers:
            self._workers.pop().end()
        while self._slots:
            self._slots.pop().close()
