"""WordPiece by words gives the ids of the tokenizer's own library, wherever its normalizer and its cuts lie."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers

from data_tools.encoding import words as words_module
from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.encoding.word_cuts import cuts_of
from data_tools.encoding.words import Words
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer

N, P = normalizers, pre_tokenizers
SETTINGS: dict[str, tuple[Any, Any]] = {
    "bert": (N.BertNormalizer(), P.BertPreTokenizer()),
    "cased": (N.BertNormalizer(lowercase=False), P.BertPreTokenizer()),
    "accents": (N.BertNormalizer(lowercase=False, strip_accents=True), P.BertPreTokenizer()),
    "lower, accents kept": (N.BertNormalizer(strip_accents=False), P.BertPreTokenizer()),
    "controls kept": (N.BertNormalizer(clean_text=False, handle_chinese_chars=False), P.BertPreTokenizer()),
    "none": (None, P.BertPreTokenizer()),
    "cleaned, composed": (N.Sequence([N.BertNormalizer(strip_accents=False), N.NFC()]), P.BertPreTokenizer()),
    "composed": (N.NFC(), P.Whitespace()),
    "compatible": (N.Sequence([N.NFKC(), N.Lowercase()]), P.Whitespace()),
    "decomposed": (N.Sequence([N.NFD(), N.StripAccents()]), P.Sequence([P.WhitespaceSplit(), P.Punctuation()])),
    "compatible, cleaned": (N.Sequence([N.BertNormalizer(), N.NFKD(), N.NFC()]), P.Whitespace()),
    "runs, then signs": (N.NFKC(), P.Sequence([P.Whitespace(), P.Punctuation(), P.Digits(individual_digits=True)])),
    "spaces alone": (N.NFC(), P.WhitespaceSplit()),
    "another normalizer": (N.Replace("=", " "), P.BertPreTokenizer()),
    "another pre-tokenizer": (N.NFC(), P.Sequence([P.WhitespaceSplit(), P.UnicodeScripts()])),
}
SIGNS = "=<>_-;`'[]#.(~!/:@{"
LETTERS = "abAK0é中Σςİßﬁ１ａｂ\u212a\u1fef\u037e\u00a8\u2260\u226e½…！😀"
MARKS = "\u0338\u0301\u0327\u3099\u200d\u00ad"
SPACES = " \t\n\r\xa0\u1680\u2003\u2028\u2029\u3000\x0b\x0c\x1c\x1d\x1e\x1f\x85\x00\x07\x7f\u200b\ufeff\ufffd\U000e0041"
PARTS = ("[SEP]", "##a", "ab", "a=b", "a_b", "<x>", "</s>", "ab ab", "\r\n", "a\u0338", "=\u0338", "=\x0b\u0338")


def nasty(draw: random.Random) -> str:
    kinds = [SIGNS, LETTERS, MARKS, SPACES, PARTS, "ab=", "=\u0338\x0b "]
    return "".join(draw.choice(draw.choice(kinds)) for _ in range(draw.randrange(30)))


def made(folder: Path, setting: str, added: Sequence[dict[str, Any]] = (), parse_special: bool = False) -> Tokenizer:
    """A tokenizer whose words are letters, and a few longer ones."""
    characters = sorted({*SIGNS, *LETTERS.lower(), *LETTERS, *MARKS, *SPACES, "ss", "i", "fi"})
    pieces = ["[UNK]", "[SEP]", *characters, *(f"##{each}" for each in characters), "ab", "##ab", "==", "<x", "aab"]
    library = Library(models.WordPiece({each: number for number, each in enumerate(pieces)}, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = SETTINGS[setting]
    described = json.loads(library.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokens = [{"content": "[SEP]", "special": True}, *added]
    described["added_tokens"] = [
        {**flags, "id": 1 if each["content"] == "[SEP]" else len(pieces) + number, **each}
        for number, each in enumerate(tokens)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(described))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "[SEP]"}')
    return load_tokenizer(folder, parse_special=parse_special)


def by_words(tokenizer: Tokenizer) -> Words:
    assert tokenizer.description is not None
    cuts = cuts_of(tokenizer.description)
    assert cuts is not None
    return Words(tokenizer, cuts)


def same(tokenizer: Tokenizer, library: Words, texts: Sequence[str]) -> None:
    given = [ids.tolist() for ids in library.encode(texts).each()]
    for text, ids, expected in zip(texts, given, tokenizer.encode_batch(texts), strict=True):
        assert ids == expected, ascii(text)


@pytest.mark.parametrize("setting", SETTINGS)
def test_any_text(tmp_path: Path, setting: str) -> None:
    tokenizer = made(tmp_path, setting)
    library = by_words(tokenizer)
    draw = random.Random(setting)
    for _ in range(4):
        same(tokenizer, library, [*HARD_TEXTS, *(nasty(draw) for _ in range(400))])
    same(tokenizer, library, [])
    same(tokenizer, library, ["", " ", "\n"])


ADDED: dict[str, dict[str, Any]] = {
    "a word": {"content": "ab"},
    "normalized": {"content": "ab", "normalized": True},
    "a word by itself": {"content": "ab", "single_word": True},
    "a sign by itself": {"content": "=", "single_word": True},
    "a sign": {"content": "a=b"},
    "signs": {"content": "<x>", "normalized": True},
    "a line": {"content": "a\nb"},
    "lines": {"content": "\r\n"},
    "wide": {"content": "！", "normalized": True},
    "dots": {"content": "…", "normalized": True},
    "Chinese": {"content": "中", "normalized": True},
    "composed": {"content": "\u2260", "normalized": True},
    "wide letters": {"content": "ａｂ", "normalized": True},
}


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("setting", ["bert", "composed", "cleaned, composed", "compatible", "runs, then signs"])
def test_added_tokens(tmp_path: Path, setting: str, added: str) -> None:
    draw = random.Random(f"{setting} {added}")
    content = ADDED[added]["content"]
    texts = [nasty(draw) + draw.choice(["", content]) + nasty(draw) for _ in range(300)]
    texts += [f"{before}{content}{after}" for before in ("_", "a", "=", "\n", "中") for after in ("_", "a", "=", "\t")]
    for parse_special in (False, True):
        tokenizer = made(tmp_path, setting, [ADDED[added]], parse_special)
        same(tokenizer, by_words(tokenizer), texts)


@pytest.mark.parametrize(
    ("setting", "added", "text", "word"),
    [
        ("bert", {"content": "ab"}, "a b|c", ["a", ".", "b=\u0338c", ";"]),
        ("composed", {"content": "ab"}, "a b|c", ["a", ".", "b", "=\u0338c", ";"]),
        ("spaces alone", {"content": "ab"}, "a b|c", None),
        ("bert", {"content": "a=b"}, "a b|c", None),
        ("bert", {"content": "ab", "single_word": True}, "a b|c", None),
        ("bert", {"content": "a\nb"}, "a b\nc", None),
        ("bert", {"content": "！"}, "a b\nc", None),
        ("another normalizer", {"content": "ab"}, "a b\nc", None),
        ("another pre-tokenizer", {"content": "ab"}, "a b\nc", None),
    ],
)
def test_where_it_cuts(tmp_path: Path, setting: str, added: dict[str, Any], text: str, word: list[str] | None) -> None:
    description = made(tmp_path, setting, [added]).description
    assert description is not None
    cuts = cuts_of(description)
    assert cuts is not None
    assert cuts.text("a b\nc") == text.replace("|", " ").split(" ")
    assert (cuts.word and cuts.word("a.b=\u0338c;")) == word


@pytest.mark.parametrize("added", [{"content": "a b"}, {"content": "ab", "lstrip": True}])
def test_a_token_with_spaces_leaves_no_cut(tmp_path: Path, added: dict[str, Any]) -> None:
    description = made(tmp_path, "bert", [added]).description
    assert description is not None
    assert cuts_of(description) is None


def test_a_full_memory_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made(tmp_path, "bert")
    library = by_words(tokenizer)
    remembered = library._words, library._pieces
    same(tokenizer, library, HARD_TEXTS)
    assert all(each.bytes > 10_000 for each in remembered)
    monkeypatch.setattr(words_module, "MOST_BYTES", 10_000)
    same(tokenizer, library, ["a"])
    assert all(each.bytes == 0 for each in remembered)
    same(tokenizer, library, HARD_TEXTS)


def test_a_failure_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made(tmp_path, "bert")
    library = by_words(tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "encode_batch", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            library.encode(["a.b c"])
    same(tokenizer, library, ["d", "a.b c", "c"])
