"""Blocks to token ids in worker processes, in order."""

from collections.abc import Collection, Iterable, Iterator
from types import TracebackType

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.proof import EncodingProof
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block
from data_tools.text.tokenizer import Tokenizer


class EncodingPool:
    """Worker processes that encode.

    They are forked when the pool is entered, from the thread that enters it, and end with that thread. So enter it
    before threads are started that may hold a lock (those that read files, torch's), or in a fresh process.

    Args:
        workers: processes; what comes out does not depend on their number.
        tokenizer: the recipe's, if it is loaded already (with the recipe's `parse_special`).

    Raises:
        TrainyardError: the tokenizer cannot be had.
    """

    def __init__(self, recipe: Recipe, workers: int, tokenizer: Tokenizer | None = None) -> None:
        raise NotImplementedError

    @property
    def proof(self) -> EncodingProof:
        """What encodes, and what was compared up to the last block that came out."""
        raise NotImplementedError

    def encode(
        self, blocks: Iterable[Block], by_reference: Collection[str] = (), after: EncodingProof | None = None
    ) -> Iterator[tuple[Block, EncodedBlock]]:
        """The blocks with their ids, in order.

        At `DifferentIds` the caller drops what it has of the part `error.origin`, and calls this again with the part
        from its beginning (and the parts behind it), `by_reference` with the origin added, and `after` the proof as it
        was in front of the part.

        Args:
            by_reference: origins of parts that the reference encodes.
            after: the proof to go on from, of an earlier call or process; None: nothing was compared.

        Raises:
            DifferentIds: the library gives other ids than the reference.
            TrainyardError: a worker died, or a text cannot be encoded.
        """
        raise NotImplementedError

    def __enter__(self) -> "EncodingPool":
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError
