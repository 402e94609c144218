"""A SentencePiece `.model` as a `tokenizer.json` of the same ids: the converters of transformers 5.23 leave out the
space that such models put before a text, and so give other ids to 40 of 44 hard texts."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from data_tools.text.sentencepiece_tokenizer import LARGEST_FILE
from megatron_patches.errors import Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable

_SPACE = "\u2581"


class _Type(IntEnum):
    """`ModelProto.SentencePiece.Type` of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


_MODELS = {1: "Unigram", 2: "BPE"}
"""`TrainerSpec.ModelType`; 3 and 4 are words and characters"""


@dataclass(frozen=True)
class ConvertedModel:
    """What a `.model` says."""

    description: Mapping[str, Any]
    """a `tokenizer.json`"""
    roles: Mapping[str, str]
    """its tokens by role, such as `bos_token`"""
    fixed: tuple[str, ...]
    """pieces that a user defined: a text that spells one always becomes it"""


def converted_model(path: Path) -> ConvertedModel:
    """Reads a `.model`; whether the library then gives the same ids is for the caller to see.

    Raises:
        Refused: it is a model of words or characters.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(read_bounded(path, LARGEST_FILE))
    kind = _MODELS.get(proto.trainer_spec.model_type)
    if kind is None:
        raise Refused(
            f"{printable(path)} is a SentencePiece model of words or characters; tokenizers of transformers are made "
            "of those of type unigram or bpe"
        )
    description = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": _added(proto),
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(proto.normalizer_spec)},
        "pre_tokenizer": None, "post_processor": None, "decoder": _decoder(proto.normalizer_spec),
        "model": _unigram(proto) if kind == "Unigram" else _bpe(proto),
    }  # fmt: skip
    fixed = tuple(each.piece for each in proto.pieces if each.type == _Type.USER_DEFINED)
    return ConvertedModel(description, _roles(proto), fixed)


def _roles(proto: Any) -> dict[str, str]:
    spec = proto.trainer_spec
    numbers = {"bos_token": spec.bos_id, "eos_token": spec.eos_id, "unk_token": spec.unk_id, "pad_token": spec.pad_id}
    return {role: proto.pieces[number].piece for role, number in numbers.items() if 0 <= number < len(proto.pieces)}


def _added(proto: Any) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": number, "content": each.piece, **flags, "special": True}
        for number, each in enumerate(proto.pieces)
        if each.type in (_Type.UNKNOWN, _Type.CONTROL)
    ]


def _normalizers(spec: Any) -> list[dict[str, Any]]:
    """In the order in which the library applies them."""
    found: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        table = base64.b64encode(spec.precompiled_charsmap).decode()
        found.append({"type": "Precompiled", "precompiled_charsmap": table})
    if spec.remove_extra_whitespaces:
        found.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        found.append({"type": "Strip", "strip_left": True, "strip_right": True})
    if spec.add_dummy_prefix:
        found.append({"type": "Prepend", "prepend": _SPACE})
    if spec.escape_whitespaces:
        found.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
    return found


def _decoder(spec: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if spec.add_dummy_prefix:
        parts.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": parts}


def _unigram(proto: Any) -> dict[str, Any]:
    """A piece that a user defined scores as the library has it (unigram_model.cc): its length times the largest score,
    less 0.1, so that no other way to spell it is likelier."""
    normal = [each.score for each in proto.pieces if each.type == _Type.NORMAL]
    largest = max(normal, default=0.0)
    vocabulary = [
        [each.piece, len(each.piece.encode()) * largest - 0.1 if each.type == _Type.USER_DEFINED else each.score]
        for each in proto.pieces
    ]
    unknown = next(number for number, each in enumerate(proto.pieces) if each.type == _Type.UNKNOWN)
    fallback = bool(proto.trainer_spec.byte_fallback)
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": fallback}


def _bpe(proto: Any) -> dict[str, Any]:
    """Merges are not in the file: two pieces whose text together is a piece merge, the better its score the sooner."""
    scores = {each.piece: each.score for each in proto.pieces if each.type in (_Type.NORMAL, _Type.USER_DEFINED)}
    numbers = {each.piece: number for number, each in enumerate(proto.pieces)}
    merges = sorted(_pairs(scores), key=lambda pair: (-scores[pair[0] + pair[1]], numbers[pair[0]], numbers[pair[1]]))
    unknown = next(each.piece for each in proto.pieces if each.type == _Type.UNKNOWN)
    return {
        "type": "BPE", "vocab": numbers, "merges": [list(pair) for pair in merges], "unk_token": unknown,
        "fuse_unk": True, "byte_fallback": bool(proto.trainer_spec.byte_fallback),
    }  # fmt: skip


def _pairs(pieces: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for piece in pieces:
        for cut in range(1, len(piece)):
            if piece[:cut] in pieces and piece[cut:] in pieces:
                yield piece[:cut], piece[cut:]
