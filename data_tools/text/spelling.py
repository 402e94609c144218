"""What the pieces of a vocabulary stand for, as bytes of UTF-8: how a `tokenizer.json` writes them, and SentencePiece.

A byte-level vocabulary writes each byte as a character that can be printed (GPT-2, `bytes_to_unicode`); others write
text, a space as U+2581 and a byte alone as `<0xE2>`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Spelling = Callable[[str], bytes]


def byte_level(piece: str) -> bytes:
    """The bytes of a piece of a byte-level vocabulary; what is none of its characters stands for itself."""
    return b"".join(bytes([_BYTES[each]]) if each in _BYTES else each.encode("utf-8") for each in piece)


def _byte_characters() -> dict[str, int]:
    """Bytes that print stand for themselves, the others, in their order, for U+0100 and on."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_characters()


def spaced(piece: str, space: str = SPACE, with_bytes: bool = True) -> bytes:
    """The bytes of a piece of a vocabulary of text.

    Args:
        space: what a space is written as.
        with_bytes: whether `<0xE2>` is a byte.
    """
    if with_bytes and (byte := _BYTE.fullmatch(piece)):
        return bytes([int(byte[1], 16)])
    return piece.replace(space, " ").encode("utf-8")


def spelling_of(decoder: Any) -> Spelling | None:
    """How a `tokenizer.json` with this `decoder` writes its pieces; None where that is not known, or depends on a
    piece's neighbours.
    """
    steps = list(_steps(decoder))
    kinds = {step.get("type") for step in steps}
    if kinds == {"ByteLevel"}:
        return byte_level
    spaces = [space for step in steps if (space := _space(step)) is not None]
    if len(spaces) != 1 or kinds - {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}:
        return None
    return lambda piece: spaced(piece, spaces[0], "ByteFallback" in kinds)


def _steps(decoder: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(decoder, dict):
        return
    inner = decoder.get("decoders")
    if decoder.get("type") == "Sequence" and isinstance(inner, list):
        for each in inner:
            yield from _steps(each)
    else:
        yield decoder


def _space(step: Mapping[str, Any]) -> str | None:
    """What a step of a decoder turns into a space."""
    if step.get("type") == "Metaspace":
        written = step.get("replacement", SPACE)
    elif step.get("type") == "Replace":
        pattern = step.get("pattern")
        written = pattern.get("String") if isinstance(pattern, dict) and step.get("content") == " " else None
    else:
        return None
    return written if isinstance(written, str) and written else None
