"""Parts to samples, in an order that follows from the settings alone."""

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from data_tools.reading.block import Part
from data_tools.streams.cutting import Arrays, CutSamples, Cutting
from data_tools.streams.document_blocks import DocumentBlock, DocumentBlocks, Place, one_ahead
from data_tools.streams.end_of_data import EndOfData, NoSamples
from data_tools.streams.order import order_of_documents
from data_tools.streams.position import VERSION, StreamPosition
from data_tools.streams.settings import Encode, StreamSettings
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

CHUNK_TOKENS = 1 << 17
"""what is made, sent and held at a time: 64 samples of 2,048"""


class Chunk(NamedTuple):
    """Some samples, one after the other."""

    first: int
    """number of the first one"""
    arrays: Arrays
    """int32 [samples, read] each"""
    behind: StreamPosition | None
    """where the next block begins, if it is right after them"""


class TextStream:
    """The samples of a source, numbered from 0, without an end.

    What a sample is depends on the parts, the encoding and the settings: not on where reading began, or on how parts
    are cut into blocks.

    Args:
        ahead: whether a thread reads the next block while samples of one are taken, so that two are held.

    Raises:
        TrainyardError: the settings have no sense, or filters need a tokenizer that cannot be had.
    """

    def __init__(self, parts: Sequence[Part], encode: Encode, settings: StreamSettings, ahead: bool = False) -> None:
        self._ahead = ahead
        self._settings = settings
        self._key = settings.key(parts)
        self._blocks = DocumentBlocks(parts, encode, settings)
        self._cutting = Cutting(settings)

    def chunks(self, start: StreamPosition) -> Generator[Chunk, None, None]:
        """The samples from a position on.

        Raises:
            Refused: the position is one of another stream.
            EndOfData: after the last sample of `max_epochs`.
            NoSamples: an epoch makes no sample.
            Damaged: a part is cut off, or not of its format.
            TrainyardError: a part cannot be read, or has too many entries that are no documents.
        """
        self.check(start)
        position = start.model_copy(update={"key": self._key})
        place = Place(start.epoch, start.part, start.position, start.passed, start.block, start.bad, start.by_reference)
        gain = _Gain(start)
        blocks = self._blocks.read(place)
        for block in one_ahead(blocks) if self._ahead else blocks:
            if block.place.epoch != position.epoch:
                gain = self._next_epoch(gain, position)
            samples, behind = self._cut(position, block)
            del block
            yield from self._chunks_of(position.samples, samples, behind)
            del samples  # before the next ones are read, so that one block is held, not two
            position = behind
        self._next_epoch(gain, position)
        raise self._end(position)

    def check(self, position: StreamPosition) -> None:
        """Raises Refused where a position is one of another stream."""
        name = printable(self._settings.source)
        if position.version != VERSION:
            raise Refused(
                f"source {name}: its position in the text is of version {position.version}, this Trainyard reads "
                f"version {VERSION}; go on with the Trainyard that wrote it, or begin a new run"
            )
        if position.key != self._key and position.model_copy(update={"key": ""}) != StreamPosition():
            raise Refused(
                f"source {name}: its position in the text belongs to other files, another tokenizer or other settings "
                f"(key {printable(position.key) or 'empty'}, not {self._key}); restore what the run had (files, "
                "tokenizer, seed, shuffle_documents, data.samples, sequence_length), or begin a new run"
            )

    def _cut(self, position: StreamPosition, block: DocumentBlock) -> tuple[CutSamples, StreamPosition]:
        """A block's samples, and the position after them."""
        documents = block.documents
        order = order_of_documents(self._settings, len(documents.lengths), block.place.epoch, block.place.block)
        if order is not None:
            documents = documents.in_order(order)
        samples, carried = self._cutting.cut(documents, position.carried)
        place = block.behind
        return samples, StreamPosition(
            key=self._key,
            epoch=place.epoch,
            part=place.part,
            position=dict(place.position),
            passed=place.passed,
            block=place.block,
            bad=place.bad,
            by_reference=place.by_reference,
            documents=position.documents + len(documents.lengths),
            tokens=position.tokens + len(documents.tokens),
            samples=position.samples + len(samples),
            carried=carried,
        )

    def _chunks_of(self, first: int, samples: CutSamples, behind: StreamPosition) -> Iterator[Chunk]:
        at_once = max(1, CHUNK_TOKENS // self._settings.lengths.read)
        for place in range(0, len(samples), at_once):
            end = min(place + at_once, len(samples))
            yield Chunk(first + place, samples.arrays(place, end), behind if end == len(samples) else None)
        if not len(samples):
            yield Chunk(first, {}, behind)

    def _next_epoch(self, gain: "_Gain", position: StreamPosition) -> "_Gain":
        """Looks at what an epoch gave; raises NoSamples where that is nothing, as it would be for ever."""
        if gain.of_whole_epoch and not gain.gives(position):
            raise NoSamples(
                f"source {printable(self._settings.source)}: "
                f"{counted(position.documents - gain.start.documents, 'document')} with "
                f"{counted(position.tokens - gain.start.tokens, 'token')} make no sample: all of them are empty, or "
                "left out by data.samples; give other text, or other filters"
            )
        return _Gain(position, True)

    def _end(self, position: StreamPosition) -> EndOfData:
        epochs = self._settings.max_epochs or 0
        return EndOfData(
            f"source {printable(self._settings.source)} is at its end: {counted(epochs, 'epoch')} (max_epochs) of its "
            f"text had {counted(position.documents, 'document')} with {counted(position.tokens, 'token')}, which made "
            f"{counted(position.samples, 'sample')}; train fewer steps, give more text, or a larger max_epochs",
            position.samples,
        )


class _Gain:
    """What there is more of than at the beginning of an epoch."""

    def __init__(self, start: StreamPosition, of_whole_epoch: bool | None = None) -> None:
        self.start = start
        self.of_whole_epoch = (start.block == 0) if of_whole_epoch is None else of_whole_epoch

    def gives(self, position: StreamPosition) -> bool:
        """Whether there is a new sample, or some tokens of one."""
        grows = position.samples - self.start.samples + max(0, len(position.carried) - len(self.start.carried))
        return grows > 0
