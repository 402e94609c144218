"""A SentencePiece `.model`, through the sentencepiece library."""

from collections.abc import Iterator, Sequence
from typing import Any

from data_tools.text.spelling import spaced
from data_tools.text.tokenizer import END_OF_DOCUMENT_CANDIDATES, Tokenizer, TokenizerFiles
from megatron_patches.errors import Damaged
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable, shortened

LARGEST_FILE = 256 << 20
"""bytes of a .model; mT5's, of 250,100 pieces, has 4 MB"""

# sentencepiece_model.proto: ModelProto.pieces is field 1, SentencePiece.type field 3, of which 3 means CONTROL
_PIECES_TAG = 0x0A
_CONTROL = b"\x18\x03"


class SentencePieceTokenizer(Tokenizer):
    """A `.model`.

    The library itself never finds control pieces (`<s>`, `</s>`) in a text, but it finds symbols that a user defined,
    of which one may end documents.

    Args:
        parse_special: let text become the end-of-document token where the library does.

    Raises:
        TrainyardError: the file is no such model.
    """

    library = "sentencepiece"

    def __init__(self, files: TokenizerFiles, identity: str, parse_special: bool) -> None:
        self.id = identity
        self.name = files.name
        content = read_bounded(files.model, LARGEST_FILE)
        self._library = _load(content, files)
        self.vocab_size = self._library.get_piece_size()
        self.end_of_document = self._find_end_of_document()
        ending = self.end_of_document
        hidden = not parse_special and ending is not None and not self._library.is_control(ending)
        self._encoder = _load(with_control_piece(content, ending or 0), files) if hidden else self._library
        ids = list(range(self.vocab_size))
        control = {number for number, found in zip(ids, self._encoder.is_control(ids), strict=True) if found}
        self.special_ids = frozenset({*control, self._library.unk_id()})

    def _find_end_of_document(self) -> int | None:
        if self._library.eos_id() >= 0:
            return self._library.eos_id()
        candidates = (self._library.piece_to_id(token) for token in END_OF_DOCUMENT_CANDIDATES)
        return next((token for token in candidates if token != self._library.unk_id()), None)

    def encode(self, text: str) -> list[int]:
        return self._encoder.encode(text, add_bos=False, add_eos=False)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoder.encode(list(texts), add_bos=False, add_eos=False, num_threads=1)

    def tokens(self) -> dict[int, str]:
        return {number: self._library.id_to_piece(number) for number in range(self.vocab_size)}

    def token_bytes(self) -> dict[int, bytes]:
        return {number: self._spelled(number) for number in range(self.vocab_size)}

    def _spelled(self, number: int) -> bytes:
        if self._library.is_control(number) or number == self.end_of_document:
            return b""
        if self._library.is_unknown(number):
            return self._library.decode([number]).encode("utf-8")
        return spaced(self._library.id_to_piece(number), with_bytes=self._library.is_byte(number))

    def decode(self, ids: Sequence[int]) -> str:
        return self._library.decode(list(ids))


def _load(content: bytes, files: TokenizerFiles) -> Any:
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_proto=content)
    except (RuntimeError, OSError) as error:
        raise Damaged(
            f"{printable(files.model)} is not a SentencePiece model ({shortened(error)}); copy or train it again"
        ) from error


def with_control_piece(model: bytes, number: int) -> bytes:
    """A model whose piece of this number is a control piece: of a field that occurs twice the last one counts."""
    for count, (tag_start, start, end) in enumerate(_pieces(model)):
        if count == number:
            piece = model[start:end] + _CONTROL
            return model[:tag_start] + bytes([_PIECES_TAG]) + _varint(len(piece)) + piece + model[end:]
    raise AssertionError(f"the library knows piece {number} of a model that has fewer")


def _pieces(model: bytes) -> Iterator[tuple[int, int, int]]:
    """Of each piece, in order, where its tag, its content and what follows begin."""
    position = 0
    while position < len(model):
        begin = position
        tag, position = _read_varint(model, position)
        wire = tag & 7
        if wire == 0:
            _, position = _read_varint(model, position)
        elif wire == 2:
            length, position = _read_varint(model, position)
            if tag == _PIECES_TAG:
                yield begin, position, position + length
            position += length
        else:
            position += 8 if wire == 1 else 4


def _read_varint(model: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = model[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
