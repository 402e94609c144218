"""A file that is one document."""

from collections.abc import Iterator

from data_tools.reading.block import BEGINNING, Block, Position
from data_tools.reading.documents import BLOCK_BYTES
from data_tools.reading.files.decompression import open_decompressed
from data_tools.reading.files.file_part import FilePart


class TextPart(FilePart):
    """One block, or none after it."""

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        with open_decompressed(self.path, hashed) as (stream, raw):
            pieces, left = list[bytes](), self.largest + 1
            while left and (data := stream.read(min(left, BLOCK_BYTES))):
                pieces.append(data)
                left -= len(data)
            while stream.read(BLOCK_BYTES):  # a file that is cut off is damaged even if its text is too long
                pass
            if not after:
                yield Block("text", b"".join(pieces), self.origin, "file", 1, 1, {"file": 1}, raw.tell())
            if hashed:
                raw.read_on()
                self._content = raw.content()
