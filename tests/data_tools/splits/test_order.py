"""A split in file order is warned of where it holds out another kind of text, and nowhere else."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import DatasetFacts, SourceFacts, TokenizerFacts
from data_tools.datasets.selection import DocumentRange
from data_tools.datasets.split import split_documents
from data_tools.splits.order import SplitShard, difference_of, order_warning

Tokens = NDArray[np.int64]
Shard = Callable[..., SplitShard]
WORDS = 1.0 / np.arange(2, 402)
"""Zipf's law"""


def text(random: np.random.Generator, documents: int, shift: int = 0, length: int = 120) -> list[Tokens]:
    """Documents of about `length` tokens, each with a subject of its own; `shift` changes the small words."""
    found = []
    for _ in range(documents):
        subject = random.gamma(0.5, size=400)
        shares = np.roll(WORDS, shift) * (0.5 + subject)
        found.append(random.choice(400, size=1 + random.poisson(length), p=shares / shares.sum()))
    return found


def facts_of(documents: int, sources: Sequence[tuple[str, int]]) -> DatasetFacts:
    return DatasetFacts(
        documents=documents,
        sequences=documents,
        tokens=1,
        dtype="uint16",
        largest_token_id=1,
        empty_documents=0,
        tokenizer=TokenizerFacts(id="a" * 64, name="t", vocab_size=400, end_of_document=None),
        sources=[SourceFacts(name=name, size=1, sha256="a" * 64, documents=count) for name, count in sources],
    )


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Writes documents, and splits them."""

    def make(documents: Sequence[Tokens], split: str = "9,1", sources: Sequence[tuple[str, int]] = ()) -> SplitShard:
        prefix = tmp_path / f"d{len(list(tmp_path.iterdir()))}"
        with IndexedDatasetWriter(prefix, "u2") as writer:
            for document in documents:
                writer.add_document(document)
        training, validation, _ = split_documents(split, len(documents))
        facts = facts_of(len(documents), sources)
        return SplitShard(IndexedDataset(prefix), facts, DocumentRange(*training), DocumentRange(*validation))

    return make


def test_code_then_docs_is_warned_of(shard: Shard) -> None:
    random = np.random.default_rng(0)
    code, docs = text(random, 270), text(random, 60, shift=5)
    said = order_warning([shard(code + docs, "9,1", [("code\x1b.jsonl", 270), ("docs\x1b.jsonl", 60)])])
    assert said is not None and "another kind of text" in said
    assert r"; docs\x1b.jsonl is 100% of validation and 9% of training." in said
    assert "set data.split_by to document_hash, or shuffle the documents" in said
    assert said == order_warning([shard(code + docs, "9,1", [("code\x1b.jsonl", 270), ("docs\x1b.jsonl", 60)])])


def test_the_same_in_any_order_is_not(shard: Shard) -> None:
    random = np.random.default_rng(0)
    documents = text(random, 270) + text(random, 60, shift=5)
    shuffled = [documents[number] for number in random.permutation(len(documents))]
    # text of one kind in many files, of which the last are for validation alone
    assert order_warning([shard(shuffled, "9,1", [(f"part-{number}.jsonl", 33) for number in range(10)])]) is None


def test_of_several_datasets_the_last_may_be_the_other_kind(shard: Shard) -> None:
    random = np.random.default_rng(0)
    code, docs = shard(text(random, 100), "1"), shard(text(random, 30, shift=5), "0,1")
    assert order_warning([code, docs]) is not None
    assert order_warning([code, shard(text(random, 30), "0,1")]) is None


def test_no_file_is_named_where_both_parts_come_from_it(shard: Shard) -> None:
    random = np.random.default_rng(0)
    documents = text(random, 90) + text(random, 10, shift=5)
    for sources in ([], [("all.jsonl", 100)], [(f"{number}.txt", 1) for number in range(100)]):
        said = order_warning([shard(documents, "9,1", sources)])
        assert said is not None and "divergence). The split" in said


def test_a_warning_without_a_cause_is_rare() -> None:
    random = np.random.default_rng(1)
    documents = text(random, 260, length=60) + text(random, 60, shift=3, length=60)
    alarms = 0
    for _ in range(20):
        order = random.permutation(len(documents))
        validation, training = ([documents[number] for number in part] for part in (order[:40], order[40:168]))
        alarms += difference_of(training, validation).is_of_kind
    assert alarms <= 1  # expected: 1 of 1,000 at most


def test_what_chance_gives_depends_on_the_documents_not_on_their_tokens() -> None:
    # one long document that repeats a token: in validation by chance, and no sign of another kind
    random = np.random.default_rng(2)
    training, validation = text(random, 128), [*text(random, 20), np.full(2000, 7)]
    found = difference_of(training, validation)
    assert found.found > 2 * found.by_chance + 0.012 and not found.is_of_kind


def test_a_small_difference_that_is_certain_is_none() -> None:
    random = np.random.default_rng(3)
    even, odd = ([random.choice(2, size=2000, p=[share, 1 - share]) for _ in range(64)] for share in (0.5, 0.54))
    found = difference_of(even, odd)
    assert found.found > found.most_by_chance and not found.is_of_kind


@pytest.mark.parametrize("documents", [[[1]], [[1], [2]], [[], [1], []], [[1], [], [1]], [[1, 2], [3, 4], [5]]])
@pytest.mark.parametrize("split", ["1", "1,1", "0,1", "2,1"])
def test_of_a_few_documents_nothing_is_said(shard: Shard, documents: list[list[int]], split: str) -> None:
    assert order_warning([shard([np.array(each, dtype=int) for each in documents], split)]) is None


def test_long_documents_are_read_in_part_and_few_of_them(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def watched(one: Sequence[Tokens], other: Sequence[Tokens]) -> object:
        read.extend(map(len, [*one, *other]))
        return difference_of(one, other)

    monkeypatch.setattr("data_tools.splits.order.difference_of", watched)
    documents = [np.arange(2500) % 400] * 50 + [np.arange(3)] * 950
    assert order_warning([shard(documents, "1,1")]) is None
    assert len(read) == 64 + 128 and set(read) == {3, 2000}
