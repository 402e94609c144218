"""Where a text may be cut so that its parts by themselves have the ids that they have within it."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data_tools.text.control_tokens import SECRET

Cut = Callable[[str], Sequence[str]]
"""a text to its parts; what stands at a cut and becomes no token is left out"""

_ALONE = r"[!-/:-@\[-`{-~](?![^!-~])|(?:[^!-/:-@\[-`{-~]|[!-/:-@\[-`{-~](?=[^!-~]))+"
"""a sign of ASCII, or what stands between two; a sign stays with a character beyond ASCII after it, with which NFC may
compose it (U+003D U+0338 is U+2260), and with a control character, which BertNormalizer takes out from between them"""
_RUNS = r"(?<=[0-9A-Za-z_])(?=[!-/:-@\[-^`{-~])|(?<=[!-/:-@\[-^`{-~])(?=[0-9A-Za-z_])"
"""where letters and signs of ASCII meet"""
_SPACES = "[ \t\n\r]+"
_NO_SPACES = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
"""what `str.split` takes for spaces, and BertNormalizer takes out or a pre-tokenizer of `tokenizers` keeps"""
_NORMALIZERS = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"}
"""those for which the characters that meet at a cut do not depend on each other"""


class Cuts(NamedTuple):
    """How a text becomes words, and a word pieces."""

    text: Cut
    word: Cut | None
    """None: a word is one piece"""


def cuts_of(description: Mapping[str, Any]) -> Cuts | None:
    """The finest cuts that are known to be exact for a `tokenizer.json` of WordPiece.

    Returns:
        None where an added token holds a space or takes those around it.
    """
    added = description["added_tokens"]
    if any(" " in each["content"] or each.get("lstrip") or each.get("rstrip") for each in added):
        return None
    known, word = _pre_tokenizer_cut(description.get("pre_tokenizer"))
    # The rest may hold what a normalizer makes a space or a sign of: U+FF01, U+2026, a letter of Chinese.
    if not known or not _known_normalizer(description.get("normalizer")) or not all(map(_is_plain, added)):
        return Cuts(_at_each_space, None)
    signs = any(not (each["content"].isalnum() or _is_secret(each)) or each.get("single_word") for each in added)
    return Cuts(_at_spaces, None if signs else word)


def _at_each_space(text: str) -> Sequence[str]:
    return text.split(" ")


def _at_spaces(text: str) -> Sequence[str]:
    # Seven searches for one character take a fifth of the time of one for seven.
    return re.split(_SPACES, text) if any(each in text for each in _NO_SPACES) else text.split()


def _pre_tokenizer_cut(described: Mapping[str, Any] | None) -> tuple[bool, Cut | None]:
    """Whether its cuts are known, and where it cuts words."""
    first, *others = _sequence(described, "pretokenizers") or [{}]
    cuts: dict[str, Cut | None] = {
        "BertPreTokenizer": re.compile(_ALONE).findall,
        "Whitespace": re.compile(_RUNS).split,
        "WhitespaceSplit": None,
    }
    if first.get("type") not in cuts:
        return False, None
    word = cuts[first["type"]]
    for each in others:
        if each.get("type") == "Punctuation" and each.get("behavior") == "Isolated":
            word = cuts["BertPreTokenizer"]
        elif each.get("type") != "Digits":
            return False, None
    return True, word


def _known_normalizer(described: Mapping[str, Any] | None) -> bool:
    return all(each.get("type") in _NORMALIZERS for each in _sequence(described, "normalizers"))


def _sequence(described: Mapping[str, Any] | None, key: str) -> Sequence[Mapping[str, Any]]:
    """The parts of a description, none for null."""
    if described is None:
        return []
    return described[key] if described.get("type") == "Sequence" else [described]


def _is_secret(token: Mapping[str, Any]) -> bool:
    return bool(token["content"].startswith(SECRET))


def _is_plain(token: Mapping[str, Any]) -> bool:
    content = token["content"]
    return _is_secret(token) or (content.isascii() and content.isprintable())
