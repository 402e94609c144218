"""Every code point of Unicode between letters, digits, marks, signs and spaces, encoded by each fast library and by the
tokenizer's own: `python -m tests.torture.characters`.

Libraries bring their own tables of Unicode, and a pattern such as \\p{L}+ cuts a text where a character's class ends.
The tokenizers here merge nothing but the character before the code point and the first byte of the code point, so that
each cut shows in the ids. All 1,112,064 code points take a minute for each of the patterns.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_tools.encoding.choice import choose_library
from data_tools.encoding.libraries import Library, Reference
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer

PATTERNS: dict[str, str | None] = {
    "gpt2": None,
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""those that people use: that of a byte-level pre-tokenizer (None; GPT-2, GPT-NeoX), Llama 3's, that of GPT-4o"""
_BEFORE = "!a1 A"
_AT_ONCE = 20_000
END = "<|endoftext|>"


def code_points() -> Sequence[int]:
    """All but surrogates."""
    return [*range(0xD800), *range(0xE000, 0x110000)]


def write_tokenizer(folder: Path, pattern: str | None) -> None:
    """A byte-level BPE that shows where its pattern cuts."""
    shown = _shown_bytes()
    vocabulary = {END: 0} | {shown[byte]: byte + 1 for byte in range(256)}
    merges = []
    for sign in _BEFORE:
        for byte in (*range(0x80), *range(0xC2, 0xF5)):
            pair = (shown[ord(sign)], shown[byte])
            if "".join(pair) not in vocabulary:
                vocabulary["".join(pair)] = len(vocabulary)
                merges.append(pair)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None}
    before = level if pattern is None else {"type": "Sequence", "pretokenizers": [split, level]}
    added = {"id": 0, "content": END, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}  # fmt: skip
    description = {
        "version": "1.0", "added_tokens": [added], "normalizer": None, "post_processor": None,
        "pre_tokenizer": before,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(description))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))


def _shown_bytes() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, as GPT-2 chose them."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def differences(tokenizer: Tokenizer, libraries: Sequence[Library], codes: Iterable[int]) -> dict[str, list[int]]:
    """Of each library, the code points that it cuts elsewhere than the tokenizer's own library."""
    found: dict[str, list[int]] = {each.name: [] for each in libraries}
    reference, waiting = Reference(tokenizer), list(codes)
    while waiting:
        now, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        texts = [f"!{chr(code)} a{chr(code)} 1{chr(code)} {chr(code)} A{chr(code)}{chr(code)}" for code in now]
        expected = reference.encode(texts).each()
        for library in libraries:
            given = library.encode(texts).each()
            found[library.name] += [
                code for code, *ids in zip(now, expected, given, strict=True) if not np.array_equal(*ids)
            ]
    return found


def opened(folder: Path, pattern: str | None) -> tuple[Tokenizer, list[Library]]:
    """The tokenizer of a pattern, and the fast libraries that take it."""
    write_tokenizer(folder, pattern)
    tokenizer = load_tokenizer(folder)
    libraries = [choose_library(tokenizer, name, print) for name in ("gigatoken", "fastokens")]
    return tokenizer, [each for each in libraries if not isinstance(each, Reference)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.characters", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only each so many-th code point (default: all)")
    every = parser.parse_args(arguments).every
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name, pattern in PATTERNS.items():
            for library, found in differences(*opened(Path(temporary, name), pattern), code_points()[::every]).items():
                wrong += len(found)
                print(f"{name}: {library} cuts {len(found):,} code points elsewhere", *(f"{x:X}" for x in found[:50]))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
