"""The ids of a pool are those of the tokenizer, whatever encodes, whatever the text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block
from data_tools.text.document_encoding import EncodedTexts
from data_tools.text.tokenizers import load_tokenizer
from tests.data_tools.conftest import TEXTS
from tests.data_tools.encoding.conftest import KINDS, cut, lines

pytestmark = pytest.mark.slow  # workers are processes
HARD = [*HARD_TEXTS, *TEXTS, "tail</s> [SEP]<s><|endoftext|>"]


def of_each(texts: EncodedTexts) -> list[list[int]]:
    """The ids of each document; an empty one has no sequence."""
    assert (texts.lengths > 0).all()
    ends = texts.document_ends().tolist()
    return [texts.tokens[begin:end].tolist() for begin, end in zip([0, *ends], ends)]  # noqa: B905


def encoded(recipe: Recipe, blocks: Sequence[Block], workers: int = 2) -> tuple[list[list[int]], EncodingPool]:
    """The ids of each document of one key, and the pool that gave them."""
    said: list[str] = []
    with EncodingPool(recipe, workers, tell=said.append) as pool:
        ids = [each for _, encoded in pool.encode(blocks) for each in of_each(encoded.texts[0])]
    assert said == []
    return ids, pool


@pytest.mark.parametrize("kind", KINDS)
def test_hard_texts(tokenizer_of: Callable[[str], Path], kind: str) -> None:
    path = tokenizer_of(kind)
    reference = load_tokenizer(path)
    ids, pool = encoded(Recipe(path, append_eod=True), cut(HARD, 7))
    assert ids == [[*given, reference.end_of_document] if (given := reference.encode(text)) else [] for text in HARD]
    library = {"byte-level": "gigatoken", "sentencepiece-bpe": "gigatoken", "wordpiece": "tokenizers-by-words"}
    assert pool.proof.library == library.get(kind, "sentencepiece" if kind.startswith("model") else "tokenizers")
    fast = kind in library
    assert (pool.proof.documents, bool(pool.proof.sha256)) == (len(HARD) if fast else 0, fast)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece-bpe"])
def test_the_tokenizers_library_itself_agrees(tokenizer_of: Callable[[str], Path], kind: str) -> None:
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(tokenizer_of(kind) / "tokenizer.json"))
    library.encode_special_tokens = True
    texts = [text for text in HARD if "</s>" not in text and "<|endoftext|>" not in text]
    ids, _ = encoded(Recipe(tokenizer_of(kind)), cut(texts, 9))
    assert ids == [library.encode(text, add_special_tokens=False).ids for text in texts]


def test_neither_workers_nor_cuts_nor_the_library_change_anything(tokenizer_folder: Path) -> None:
    recipe = Recipe(tokenizer_folder, append_eod=True)
    texts = [text[:100] for text in HARD] * 4
    once, first = encoded(recipe, [lines(texts)], 1)
    for workers, size in ((1, 11), (2, 100), (3, 1)):
        again, pool = encoded(recipe, cut(texts, size), workers)
        assert again == once
        assert pool.proof == first.proof
    for library in ("fastokens", "tokenizers"):
        other, pool = encoded(replace(recipe, library=library), cut(texts, 50))
        assert other == once
        assert pool.proof.library == library
    assert first.proof.documents >= 100


def test_ten_megabytes_in_one_line(tokenizer_folder: Path) -> None:
    once, times = "".join(TEXTS), 13_300
    assert len(once) * times > 10_000_000
    reference = load_tokenizer(tokenizer_folder)
    first = reference.encode(once)
    assert reference.encode(once * 2) == first * 2
    (ids, word, last), _ = encoded(Recipe(tokenizer_folder), [lines([once * times, "z" * 1_000_000, "end"])])
    assert ids == first * times
    assert reference.decode(word) == "z" * 1_000_000
    assert last == reference.encode("end")


def test_escaped_surrogates(tokenizer_folder: Path) -> None:
    loaded = load_tokenizer(tokenizer_folder)
    content = b'{"text": "\\ud83d\\ude00 pair"}\n{"text": "half \\ud83d"}\n\n{"text": "plain"}\n'
    block = Block("lines", content, "part.jsonl", "line", 1, 4, {}, len(content))
    with EncodingPool(Recipe(tokenizer_folder), 1) as pool:
        ((_, result),) = pool.encode([block])
    good = of_each(result.texts[0])
    assert (good[0], good[-1]) == (loaded.encode("\U0001f600 pair"), loaded.encode("plain"))
    assert [each.number for each in result.bad] in ([2], [])
    assert len(good) + len(result.bad) == 3


@pytest.mark.parametrize("append_eod", [False, True])
@pytest.mark.parametrize("max_length", [None, 1, 2, 5, 1000])
def test_a_document_keeps_its_first_tokens(tokenizer_folder: Path, append_eod: bool, max_length: int | None) -> None:
    reference = load_tokenizer(tokenizer_folder)
    texts = ["", "a", *TEXTS, "x" * 5000]
    ids, _ = encoded(Recipe(tokenizer_folder, append_eod=append_eod, max_length=max_length), cut(texts, 5))
    ending = [0] if append_eod else []
    room = 10**9 if max_length is None else max_length - append_eod
    assert ids == [given[:room] + ending if (given := reference.encode(text)) else [] for text in texts]


def test_many_and_no_documents(tokenizer_folder: Path) -> None:
    blocks = [Block("lines", b"\n\n", "a", "line", 1, 2, {}, 2), lines([""] * 20_000, 3, "a"), lines(["a", ""], 9, "a")]
    with EncodingPool(Recipe(tokenizer_folder), 2) as pool:
        results = [result.texts[0] for _, result in pool.encode(blocks)]
    assert [(each.documents, each.tokens.size, each.empty.size) for each in results] == [
        (0, 0, 0), (20_000, 0, 20_000), (2, 1, 1),
    ]  # fmt: skip
    assert results[2].empty.tolist() == [1]
    assert results[2].sequences is not None and results[2].sequences.tolist() == [1, 0]
    assert list(map(type, results[2][:3])) == [np.ndarray] * 3


def test_text_of_special_tokens_is_text_unless_it_is_asked_for(tokenizer_folder: Path) -> None:
    texts = ["a<|endoftext|>b", "plain"]
    for parse_special in (False, True):
        ids, _ = encoded(Recipe(tokenizer_folder, parse_special=parse_special), [lines(texts)])
        assert ids == load_tokenizer(tokenizer_folder, parse_special=parse_special).encode_batch(texts)
        assert (0 in ids[0]) == parse_special


def test_user_tokens_are_kept(tokenizer_folder: Path, tmp_path: Path) -> None:
    spec = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    spec["added_tokens"] += [
        {"id": 300 + number, "content": text, **flags} for number, text in enumerate(["    ", "<user>"])
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    texts = ["a    b <user>        c", "<|endoftext|>    "]
    ids, pool = encoded(Recipe(tmp_path), [lines(texts)])
    assert ids == load_tokenizer(tmp_path).encode_batch(texts)
    assert pool.proof.library == "gigatoken"
    assert {300, 301} <= set(ids[0])
