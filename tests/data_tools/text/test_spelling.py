import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from data_tools.text.spelling import byte_level, spaced, spelling_of
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Refused

STEPS = [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
]
"""Llama 2's"""


def test_the_alphabet_is_the_library_s() -> None:
    spelled = {byte_level(character) for character in ByteLevel.alphabet()}
    assert spelled == {bytes([byte]) for byte in range(256)}
    text = "a é漢😀\n\x00"
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert b"".join(byte_level(piece) for piece, _ in pieces) == text.encode()


def test_pieces_of_text() -> None:
    assert spaced("\u2581the\u2581") == b" the "
    assert spaced("<0xE6>") == b"\xe6"
    assert spaced("<0xE6>", with_bytes=False) == b"<0xE6>"
    assert spaced("_a", "_") == b" a"


@pytest.mark.parametrize(
    ("decoder", "piece", "expected"),
    [
        ({"type": "ByteLevel", "add_prefix_space": True}, "Ġa", b" a"),
        ({"type": "Sequence", "decoders": STEPS}, "\u2581a", b" a"),
        ({"type": "Sequence", "decoders": STEPS}, "<0x0A>", b"\n"),
        ({"type": "Sequence", "decoders": [STEPS[0], STEPS[2]]}, "<0x0A>", b"<0x0A>"),
        ({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}, "_a", b" a"),
    ],
)
def test_decoders(decoder: dict[str, Any], piece: str, expected: bytes) -> None:
    spelling = spelling_of(decoder)
    assert spelling is not None
    assert spelling(piece) == expected


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        [],
        {"type": "WordPiece", "prefix": "##"},
        {"type": "Sequence", "decoders": [*STEPS, {"type": "CTC"}]},
        {"type": "Sequence", "decoders": STEPS[1:]},
        {"type": "Sequence", "decoders": [STEPS[0], STEPS[0]]},
        {"type": "Replace", "pattern": {"Regex": "x"}, "content": " "},
        {"type": "Metaspace", "replacement": 5},
    ],
)
def test_decoders_that_are_not_known(decoder: Any) -> None:
    assert spelling_of(decoder) is None


def test_a_tokenizer_whose_tokens_are_not_known(tokenizer_folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / name, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "decoder": None}))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(Refused, match="does not say which bytes a token stands for"):
        tokenizer.token_bytes()
    assert b" " in load_tokenizer(tokenizer_folder).token_bytes().values()
