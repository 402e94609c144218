"""Shards, shuffles, shares, bad entries, cut documents, collections of the Hugging Face library."""

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, read_dataset_manifest
from data_tools.datasets.preprocessing import read_documents, shuffling
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.regrouping.merge import merge_datasets
from data_tools.datasets.verification import verify_dataset
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.records.record import RecordForm
from megatron_patches.errors import TrainyardError

Request = Callable[..., PreprocessRequest]
GOLDEN = [8, 31, 53, 7, 45, 58, 52, 10]
"""first documents of 60 in the order of seed 0"""
TEXTS = [f"text of number {number} " * (number % 5) for number in range(60)]


@pytest.fixture
def request_for(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request of two files, in small blocks, batches and buckets."""
    monkeypatch.setattr("data_tools.reading.files.lines_part.BLOCK_BYTES", 300)
    monkeypatch.setattr(read_documents, "BATCH_TOKENS", 300)
    monkeypatch.setattr(read_documents, "DOCUMENTS_AT_ONCE", 20)
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 500)
    monkeypatch.setattr(shuffling, "GROUP_TOKENS", 100)
    for name, texts in (("a", TEXTS[:35]), ("b", TEXTS[35:])):
        entries = ({"text": text, "title": f"title {number}"} for number, text in enumerate(texts))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries))

    def make(name: str, **settings: Any) -> PreprocessRequest:
        inputs = settings.pop("inputs", [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
        settings = {"append_eod": True, "tokenizer": tokenizer_folder, **settings}
        return PreprocessRequest(inputs, tmp_path / "out" / name, **settings)

    return make


def documents(prefix: Path) -> list[list[int]]:
    """The tokens of each document, empty ones included."""
    dataset = IndexedDataset(prefix)
    ends = np.cumsum(dataset.document_lengths(0, dataset.number_of_documents))
    return [each.tolist() for each in np.split(dataset.tokens, ends[:-1])]


def facts_of(prefix: Path) -> DatasetFacts:
    assert verify_dataset(prefix)
    return read_dataset_manifest(prefix)[1]


def test_facts_are_the_hashes_of_the_files(tmp_path: Path, request_for: Request) -> None:
    packed = gzip.compress(b'{"text": "one"}\n') + gzip.compress(b'{"text": "two"}\n' * 50)
    (tmp_path / "c.jsonl.gz").write_bytes(packed)
    request = request_for("d", inputs=[tmp_path / "a.jsonl", tmp_path / "c.jsonl.gz"], tokens=60)
    preprocess(request)
    facts = facts_of(request.output)
    for source in facts.sources:
        content = (tmp_path / source.name).read_bytes()
        assert (source.size, source.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    preprocess(replace(request, tokens=None, overwrite=True))
    assert [each.sha256 for each in facts_of(request.output).sources][1] == hashlib.sha256(packed).hexdigest()


def test_shards_end_with_the_document_that_brings_them_to_their_tokens(tmp_path: Path, request_for: Request) -> None:
    whole, shards = request_for("whole"), request_for("part", shard_tokens=90)
    preprocess(whole)
    made = preprocess(shards).datasets
    assert [each.prefix.name for each in made] == [f"part-{number:05}" for number in range(len(made))]
    assert [each for shard in made for each in documents(shard.prefix)] == documents(whole.output)
    for number, each in enumerate(made):
        facts = facts_of(each.prefix)
        assert facts.settings is not None and (facts.settings.shard, facts.settings.shard_tokens) == (number, 90)
        last = len(documents(each.prefix)[-1])
        assert facts.tokens - last < 90 and (facts.tokens >= 90 or number == len(made) - 1)
    merge_datasets([each.prefix for each in made], tmp_path / "out" / "merged")
    assert facts_of(tmp_path / "out" / "merged").sources == facts_of(whole.output).sources
    with pytest.raises(TrainyardError, match=r"part-00000.bin exists already"):
        preprocess(shards)
    fewer = preprocess(replace(shards, shard_tokens=400, overwrite=True)).datasets
    assert len(list((tmp_path / "out").glob("part-*.bin"))) == len(fewer) < len(made)


def test_a_shuffle_keeps_documents_and_their_sources(tmp_path: Path, request_for: Request) -> None:
    preprocess(request_for("plain", json_keys=("text", "title")))
    request = request_for("mixed", json_keys=("text", "title"), shuffle_seed=5, shard_tokens=200)
    shards = [each.prefix for each in preprocess(request).datasets]
    plain, mixed = (
        [
            [each for prefix in prefixes for each in documents(prefix)]
            for prefixes in (
                [prefix for prefix in every if prefix.name.startswith(f"{name}_{key}")] for key in ("text", "title")
            )
        ]
        for name, every in (
            ("plain", [tmp_path / "out" / f"plain_{key}" for key in ("text", "title")]),
            ("mixed", shards),
        )
    )
    pairs = [list(zip(*each, strict=True)) for each in (plain, mixed)]
    assert pairs[0] != pairs[1] and sorted(pairs[0]) == sorted(pairs[1])
    texts = [prefix for prefix in shards if "_text-" in prefix.name]
    counts = {"a.jsonl": 0, "b.jsonl": 0}
    for prefix in texts:
        for source in facts_of(prefix).sources:
            counts[source.name] += source.documents
    assert counts == {"a.jsonl": 35, "b.jsonl": 25}


def test_an_order_follows_from_its_seed_alone(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(request_for("plain"))
    for name, bucket_bytes, seed in (("small", 200, 0), ("large", 1 << 30, 0), ("other", 500, 1)):
        monkeypatch.setattr(shuffling, "BUCKET_BYTES", bucket_bytes)
        preprocess(request_for(name, shuffle_seed=seed, workers=1 + seed))
    plain, small, large, other = (documents(tmp_path / "out" / name) for name in ("plain", "small", "large", "other"))
    order = np.argsort(shuffling.drawn(0, 60, shuffling.order_key(0, None))).tolist()
    assert order[:8] == GOLDEN  # part of every dataset that was made so: it may never change
    assert small == large == [plain[each] for each in order]
    assert other != small and sorted(other) == sorted(small)


def test_a_shuffle_is_uniform() -> None:
    """Each document is as often at each place."""
    counts = np.zeros((6, 6))
    for seed in range(1800):
        order = np.argsort(shuffling.drawn(0, 6, shuffling.order_key(seed, None)))
        counts[np.arange(6), order] += 1
    assert ((counts - 300) ** 2 / 300).sum() < 60  # chi-squared of 25 degrees of freedom: 1 in 10,000 is above


def test_records_and_made_up_documents_are_shuffled_whole(tmp_path: Path, request_for: Request) -> None:
    form = RecordForm("pairs", ("title", "title2"), None, " ")
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"title": f"q {number}", "title2": f"a {number}"}) + "\n" for number in range(30))
    )
    for name, seed in (("plain", None), ("mixed", 2)):
        preprocess(request_for(name, inputs=[tmp_path / "p.jsonl"], records=form, append_eod=False, shuffle_seed=seed))
    facts = [facts_of(tmp_path / "out" / name) for name in ("plain", "mixed")]
    assert facts[0].answers == facts[1].answers and facts[1].sequences == 60
    records = [
        sorted(zip(each[::2], each[1::2], strict=True))
        for each in ([each.tolist() for each in IndexedDataset(tmp_path / "out" / name)] for name in ("plain", "mixed"))
    ]
    assert records[0] == records[1]
    for name, seed in (("made", None), ("mixed2", 2)):
        preprocess(request_for(name, shuffle_seed=seed, arithmetic=ArithmeticRequest(None, 7, 2)))
    both = [documents(tmp_path / "out" / name) for name in ("made", "mixed2")]
    assert sorted(both[0]) == sorted(both[1]) and len(both[0]) == 67


@pytest.mark.parametrize("shares", [2, 3])
def test_shares_are_the_whole_one_behind_the_other(tmp_path: Path, request_for: Request, shares: int) -> None:
    preprocess(request_for("whole"))
    parts = []
    for number in range(shares):
        [made] = preprocess(request_for("part", share=(number, shares))).datasets
        assert made.prefix.name == f"part-{number:05}-of-{shares:05}"
        parts += documents(made.prefix)
        facts = facts_of(made.prefix)
        assert facts.settings is not None and facts.settings.share == f"{number}/{shares}"
        for source in facts.sources:
            first, end = source.stretch or (0, None)
            content = (tmp_path / source.name).read_bytes()[first:end]
            assert source.sha256 == hashlib.sha256(content).hexdigest()
    assert parts == documents(tmp_path / "out" / "whole")


def test_entries_that_are_no_documents(tmp_path: Path, request_for: Request) -> None:
    lines = (tmp_path / "b.jsonl").read_text().splitlines()
    lines[3], lines[20] = '{"text": "cut', '{"other": 1}'
    (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(TrainyardError, match=r"b.jsonl, line 4 is not JSON"):
        preprocess(request_for("d"))
    with pytest.raises(TrainyardError, match=r"b.jsonl, line 21: no key 'text'.*--max-bad 1 left out as many before"):
        preprocess(request_for("d", max_bad=1))
    told = list[str]()
    summary = preprocess(request_for("d", max_bad=2), tell=told.append)
    assert [("line 4" in line, "line 21" in line) for line in told] == [(True, False), (False, True)]
    facts = facts_of(tmp_path / "out" / "d")
    assert (summary.bad, facts.left_out, facts.documents) == (2, 2, 58)
    assert [each.documents for each in facts.sources] == [35, 23]


@pytest.mark.parametrize("append_eod", [False, True])
def test_long_documents_are_cut_and_counted(tmp_path: Path, request_for: Request, append_eod: bool) -> None:
    preprocess(request_for("whole", append_eod=append_eod))
    preprocess(request_for("cut", append_eod=append_eod, max_length=12))
    whole, cut = (documents(tmp_path / "out" / name) for name in ("whole", "cut"))
    expected = [each if len(each) <= 12 else [*each[: 12 - append_eod], *[0] * append_eod] for each in whole]
    assert cut == expected
    facts = facts_of(tmp_path / "out" / "cut")
    assert facts.shortened_documents == sum(len(each) > 12 for each in whole) > 0
    assert facts.settings is not None and facts.settings.max_length == 12
