"""A fast library that gives other ids is found, and its part is encoded again by the reference."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.encoding import choice
from data_tools.encoding.libraries import LibraryFailed
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.encoding.sampling import sampled
from data_tools.text.document_encoding import SpacedIds, spaced
from data_tools.text.tokenizers import load_tokenizer
from tests.data_tools.encoding.conftest import cut
from tests.data_tools.encoding.test_equality import of_each

BAD = "the bad one"
Change = Callable[[list[Any]], list[Any]]


class Broken:
    """A library that gives the ids of the reference, but not where a text holds BAD."""

    name, version = "broken", "1"

    def __init__(self, folder: Path, change: Change) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._change = change

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        ids: list[Any] = [np.array(each, np.uint32) for each in self._tokenizer.encode_batch(texts)]
        for number, text in enumerate(texts):
            if BAD in text:
                ids[number : number + 1] = self._change([ids[number]])
        if len(ids) != len(texts):
            raise LibraryFailed(f"gave ids of {len(ids)} texts in place of {len(texts)}")
        return spaced(ids)

    def rebuilt(self) -> "Broken":
        return self


def wrong(ids: list[Any]) -> list[Any]:
    return [np.append(ids[0][:-1], ids[0][-1] ^ 1)]


def control(ids: list[Any]) -> list[Any]:
    return [np.append(ids[0], np.uint32(0))]


def beyond(ids: list[Any]) -> list[Any]:
    return [np.append(ids[0], np.uint32(9_999))]


def missing(ids: list[Any]) -> list[Any]:
    return []


def panics(ids: list[Any]) -> list[Any]:
    raise LibraryFailed("failed (PanicException: index out of bounds)")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tokenizer_folder: Path) -> Callable[[Change], None]:
    def set_library(change: Change) -> None:
        monkeypatch.setattr(choice, "FAST_LIBRARIES", {"BPE": {"broken": lambda *_: Broken(tokenizer_folder, change)}})

    return set_library


def texts_with_bad(at: int, count: int = 3_000) -> list[str]:
    return [BAD if number == at else f"text {number}" for number in range(1, count + 1)]


DRAWN = next(number + 1 for number, _ in sampled(range(1, 3_000)) if number >= 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "at", "where", "reason"),
    [
        (wrong, 1, "line 1", r"other ones from id \d+ on"),
        (wrong, 100, "line 100", "other ones"),
        (wrong, DRAWN, f"line {DRAWN}", "other ones"),
        (control, 1_777, "line 1777", "gives id 0, which no text becomes"),
        (beyond, 2_222, "line 2222", "gives id 9999"),
        (missing, 1_500, "line 1401", "gave ids of 99 texts in place of 100"),
        (panics, 1_500, "line 1401", "PanicException"),
    ],
)  # fmt: skip
def test_found_and_done_again(
    broken: Callable[[Change], None], tokenizer_folder: Path, change: Change, at: int, where: str, reason: str
) -> None:
    broken(change)
    reference = load_tokenizer(tokenizer_folder)
    good, bad = cut([f"good {n}" for n in range(500)], 100, "good.jsonl"), cut(texts_with_bad(at), 100, "bad.jsonl")
    with EncodingPool(Recipe(tokenizer_folder), 2) as pool:
        assert pool.proof.library == "broken"
        kept: list[list[int]] = []
        before = pool.proof
        with pytest.raises(DifferentIds, match=reason) as raised:
            for block, encoded in pool.encode([*good, *bad]):
                if block.origin == "good.jsonl":
                    kept += of_each(encoded.texts[0])
                    before = pool.proof
        assert (raised.value.origin, raised.value.where) == ("bad.jsonl", f"bad.jsonl, {where}")
        assert "broken" in str(raised.value)
        for _, encoded in pool.encode(bad, by_reference=["bad.jsonl"], after=before):
            kept += of_each(encoded.texts[0])
        assert kept == reference.encode_batch([f"good {n}" for n in range(500)] + texts_with_bad(at))
        assert pool.proof.by_reference == ("bad.jsonl",)
        assert pool.proof.model_copy(update={"by_reference": ()}) == before
        assert before.documents >= 100


@pytest.mark.slow
def test_one_that_is_wrong_where_nothing_is_compared_is_not_found(
    broken: Callable[[Change], None], tokenizer_folder: Path
) -> None:
    broken(wrong)
    assert (DRAWN + 1) not in [number + 1 for number, _ in sampled(range(1, 3_000))]
    with EncodingPool(Recipe(tokenizer_folder), 1) as pool:
        assert len(list(pool.encode(cut(texts_with_bad(DRAWN + 1), 100)))) == 30


def refusing(*_: object) -> Any:
    raise type("PanicException", (BaseException,), {})("called `Option::unwrap()` on a `None` value")


class Unlike(Broken):
    """A library that gives every text the same ids."""

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        return spaced([np.array([5], np.uint32) for _ in texts])


def test_a_library_that_cannot_be_taken_is_named_and_the_next_one_taken(
    monkeypatch: pytest.MonkeyPatch, tokenizer_folder: Path
) -> None:
    good = choice.FAST_LIBRARIES["BPE"]["gigatoken"]
    libraries = {"panics": refusing, "unlike": lambda *_: Unlike(tokenizer_folder, wrong), "good": good}
    monkeypatch.setattr(choice, "FAST_LIBRARIES", {"BPE": libraries})
    said: list[str] = []
    tokenizer = load_tokenizer(tokenizer_folder)
    assert choice.choose_library(tokenizer, None, said.append).name == "gigatoken"
    assert said == [
        "panics is not used for bpe: it does not take the tokenizer (called `Option::unwrap()` on a `None` value)",
        "unlike is not used for bpe: it gives hard text 0 ('') other ids than tokenizers",
    ]
    monkeypatch.setattr(choice, "FAST_LIBRARIES", {"BPE": {"panics": refusing}})
    assert choice.choose_library(tokenizer, None, said.append).name == "tokenizers"
    assert len(said) == 3
    assert choice.choose_library(tokenizer, "absent", said.append).name == "tokenizers"
    assert said[3] == "absent is not used for bpe: it does not take its model (BPE)"


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tokenizer_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs", None)
    said: list[str] = []
    assert choice.choose_library(load_tokenizer(tokenizer_folder), None, said.append).name == "fastokens"
    assert len(said) == 1 and said[0].startswith(
        "gigatoken is not used for bpe: it does not take the tokenizer (import"
    )


def test_fast_libraries_refuse_other_models_by_an_exception(tokenizer_of: Callable[[str], Path]) -> None:
    for kind in ("wordpiece", "unigram"):
        description = {"added_tokens": [], **(load_tokenizer(tokenizer_of(kind)).description or {})}
        for load in choice.FAST_LIBRARIES.values():
            with pytest.raises(BaseException) as raised:
                load(dict(description), 900)
            assert type(raised.value).__name__ == "PanicException" or isinstance(raised.value, Exception)


def test_a_sample_depends_on_numbers_alone() -> None:
    whole = {number for number, _ in sampled(range(1, 100_001))}
    for size in (7, 1000):
        cuts = [
            first - 1 + index
            for first in range(1, 100_001, size)
            for index, _ in sampled(range(first, min(first + size, 100_001)))
        ]
        assert set(cuts) == whole
    assert set(range(100)) <= whole
    assert 75 < len(whole) - 100 < 125
    assert sampled([]) == []
