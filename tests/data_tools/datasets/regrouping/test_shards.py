from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.datasets import lengths
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import bin_path
from data_tools.datasets.manifest import AnswerFacts, SettingsFacts, SourceFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.regrouping import shards, stretches
from data_tools.datasets.regrouping.merge import merge_datasets
from data_tools.datasets.regrouping.shards import Cut, boundaries, shard_prefix, split_dataset
from data_tools.datasets.verification import verify_dataset
from data_tools.domain_tokens.report import InjectionFacts
from megatron_patches.errors import Damaged, TrainyardError
from tests.data_tools.datasets.hand_written import (
    contents,
    quick_folder,
    some_documents,
    with_manifest,
    write_sequences,
)

READ = SettingsFacts(json_key="text", json_keys=["text"], append_eod=True, parse_special=False)


def of_lengths(prefix: Path, lengths: list[int], **stated: Any) -> Path:
    return with_manifest(prefix, [[list(range(1, 1 + length))] for length in lengths], **stated)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@settings(max_examples=20)
@given(
    documents=some_documents(),
    code=st.sampled_from((1, 4, 8)),
    cut=st.builds(Cut, st.sampled_from(("tokens", "documents", "shards")), st.integers(1, 12)),
    piece=st.sampled_from((8, 1 << 20)),
)
def test_shards_merged_are_the_dataset(documents: list[list[list[int]]], code: int, cut: Cut, piece: int) -> None:
    with quick_folder() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "PIECE_BYTES", piece)
        patch.setattr(lengths, "DOCUMENTS_READ_AT_ONCE", 3)
        prefix = with_manifest(place / "d", documents, code)
        try:
            made = split_dataset(prefix, place / "s", cut)
        except TrainyardError as error:
            assert "hold no tokens" in str(error) or "make no" in str(error)
            assert names(place) == {"d.bin", "d.idx", "d.manifest.json"}
            return
        first = 0
        for shard in made:
            facts = verify_dataset(shard.prefix)
            own = documents[first : first + facts.documents]
            assert contents(shard.prefix) == contents(write_sequences(place / "expected", own, code))
            assert facts.empty_documents == sum(not sum(map(len, document)) for document in own)
            first += facts.documents
        if cut.unit == "shards":
            assert len(made) == cut.number
        if cut.unit == "documents":
            assert {shard.facts.documents for shard in made[:-1]} <= {cut.number}
        merge_datasets([shard.prefix for shard in made], place / "m")
        assert contents(place / "m") == contents(prefix)
        assert read_dataset_manifest(place / "m")[1] == read_dataset_manifest(prefix)[1]


@pytest.mark.parametrize(
    ("given", "cut", "sizes"),
    [
        ([5] * 10, Cut("tokens", 20), [20, 20, 10]),
        ([5] * 10, Cut("tokens", 50), [50]),
        ([5] * 10, Cut("tokens", 1000), [50]),
        ([6] * 10, Cut("tokens", 10), [12, 6, 12, 12, 6, 12]),  # 10 on average, though none has 10
        ([3, 40, 3, 3], Cut("tokens", 10), [3, 40, 6]),
        ([0, 4, 0, 0, 4, 0], Cut("tokens", 4), [4, 4]),
        ([5] * 7, Cut("documents", 3), [15, 15, 5]),
        ([5] * 7, Cut("documents", 9), [35]),
        ([5] * 7, Cut("shards", 7), [5] * 7),
        ([100, 1, 1, 1], Cut("shards", 4), [100, 1, 1, 1]),
        ([1, 1, 1, 100], Cut("shards", 3), [2, 1, 100]),
        ([10] * 9, Cut("shards", 2), [40, 50]),
    ],
)
def test_how_much_is_in_a_shard(tmp_path: Path, given: list[int], cut: Cut, sizes: list[int]) -> None:
    made = split_dataset(of_lengths(tmp_path / "d", given), tmp_path / "s", cut)
    assert [shard.facts.tokens for shard in made] == sizes
    assert [shard.prefix.name for shard in made] == [f"s-{number:05}" for number in range(len(sizes))]


@settings(max_examples=30)
@given(given=st.lists(st.integers(0, 30), min_size=2, max_size=40), number=st.integers(1, 60))
def test_shards_of_tokens_are_cut_at_the_nearest_ends_of_documents(given: list[int], number: int) -> None:
    if not sum(given):
        return
    with quick_folder() as place:
        dataset = IndexedDataset(write_sequences(place / "d", [[[1] * length] for length in given]))
        found = boundaries(dataset, Cut("tokens", number))
        offsets = np.cumsum([0, *given])
        cuts = offsets[found].tolist()
        assert (found[0], found[-1]) == (0, len(given)) and all(a < b for a, b in pairwise(cuts))
        for cut in cuts[1:-1]:
            near = {t for t in range(number, sum(given), number) if abs(t - cut) == np.abs(offsets - t).min()}
            assert near


def test_what_a_shard_says_is_true_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are counted again; what is known of the whole dataset alone is left out."""
    monkeypatch.setattr(shards, "SEQUENCES_READ_AT_ONCE", 2)
    whole = READ.model_copy(
        update={"records": "chat", "tokens_asked": 9, "inject": "weak", "synthetic_documents": 3, "synthetic_seed": 7}
    )
    injection = InjectionFacts(
        mode="weak", bare={}, with_product={}, tenths=[0] * 10, documents=0, left_alone=1, literal=0
    )
    prefix = with_manifest(
        tmp_path / "d", [[[1], [2, 3], [4]], [[5], [6]], [[7]], [[8], [9, 9, 9], [9], [9], [9]]], settings=whole,
        answers=AnswerFacts(answers=4, tokens=7), injection=injection,
    )  # fmt: skip
    verify_dataset(prefix)
    split_dataset(prefix, tmp_path / "s", Cut("documents", 2))
    parts = [verify_dataset(shard_prefix(tmp_path / "s", number)) for number in range(2)]
    assert [each.answers for each in parts] == [AnswerFacts(answers=2, tokens=3), AnswerFacts(answers=2, tokens=4)]
    assert [each.empty_documents for each in parts] == [0, 0]
    for part in parts:
        assert part.settings == whole.model_copy(update={"tokens_asked": None, "synthetic_documents": None})
        assert part.injection is None
    merged = merge_datasets([shard_prefix(tmp_path / "s", number) for number in range(2)], tmp_path / "m")[1]
    assert (merged.answers, merged.settings) == (AnswerFacts(answers=4, tokens=7), parts[0].settings)
    assert read_dataset_manifest(tmp_path / "m")[1] == merged


def test_a_shard_knows_its_sources_and_its_origin(tmp_path: Path) -> None:
    sources = [
        SourceFacts(name=name, size=1, sha256="0" * 64, documents=n) for name, n in (("a", 3), ("b", 0), ("c", 2))
    ]
    prefix = of_lengths(
        tmp_path / "d", [3, 1, 2, 1, 1], settings=READ, sources=sources, number_not_read=1, not_read=["x"]
    )
    made = split_dataset(prefix, tmp_path / "s", Cut("documents", 2))
    told = [[(source.name, source.documents) for source in shard.facts.sources] for shard in made]
    assert told == [[("a", 2)], [("a", 1), ("c", 1)], [("c", 1)]]
    assert [shard.facts.empty_documents for shard in made] == [1, 1, 1]  # an end-of-document token and no text
    for shard in made:
        manifest, facts = read_dataset_manifest(shard.prefix)
        assert manifest == shard.manifest and manifest.parents == [read_dataset_manifest(prefix)[0].id, "t" * 64]
        assert manifest.by.command == "tools/dataset split d s --documents 2"
        assert (facts.settings, facts.number_not_read) == (READ, 0)
    assert [shard.facts.largest_token_id for shard in made] == [3, 2, 1]


def test_sources_that_a_manifest_lacks_in_part_are_not_guessed(tmp_path: Path) -> None:
    sources = [SourceFacts(name="a", size=1, sha256="0" * 64, documents=2)]
    made = split_dataset(of_lengths(tmp_path / "d", [1] * 4, sources=sources), tmp_path / "s", Cut("shards", 2))
    assert [shard.facts.sources for shard in made] == [[], []]


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (Cut("shards", 6), "5 documents, which make no 6 shards of whole documents; ask for 5 or fewer"),
        (Cut("shards", 0), "0 shards is no cut"),
        (Cut("documents", 1), r"documents 1 to 1 of .*d, which would be shard 1, hold no tokens"),
        (Cut("tokens", 1), "that makes 13 shards, and five digits name 9"),
    ],
)
def test_a_cut_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut, told: str) -> None:
    monkeypatch.setattr(shards, "MOST_SHARDS", 9)
    prefix = of_lengths(tmp_path / "d", [3, 0, 2, 3, 5])
    before = names(tmp_path)
    with pytest.raises(TrainyardError, match=told):
        split_dataset(prefix, tmp_path / "s", cut)
    assert names(tmp_path) == before


def test_what_may_not_be_replaced(tmp_path: Path) -> None:
    prefix = of_lengths(tmp_path / "d", [1] * 6)
    split_dataset(prefix, tmp_path / "s", Cut("shards", 3))
    with pytest.raises(TrainyardError, match=r"s-00000.bin exists already; .*--overwrite"):
        split_dataset(prefix, tmp_path / "s", Cut("shards", 3))
    with pytest.raises(TrainyardError, match=r"s-00002.manifest.json is there of an earlier split into more shards"):
        split_dataset(prefix, tmp_path / "s", Cut("shards", 2), overwrite=True)
    with pytest.raises(TrainyardError, match=r"s-00001 is read and cannot be written"):
        split_dataset(tmp_path / "s-00001", tmp_path / "s", Cut("shards", 2), overwrite=True)
    made = split_dataset(prefix, tmp_path / "s", Cut("shards", 4), overwrite=True)
    assert [shard.facts.documents for shard in made] == [1, 2, 1, 2]


def test_a_damaged_dataset_makes_no_shard(tmp_path: Path) -> None:
    prefix = of_lengths(tmp_path / "d", [3] * 4)
    bin_path(prefix).write_bytes(bytes(24))
    before = names(tmp_path)
    with pytest.raises(Damaged, match=r"d.bin has sha256"):
        split_dataset(prefix, tmp_path / "s", Cut("shards", 2))
    assert names(tmp_path) == before


@pytest.mark.parametrize("failing", ["s-00000", "s-00001"])
def test_a_manifest_that_cannot_be_written_takes_all_shards_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    prefix = of_lengths(tmp_path / "d", [3] * 4)
    write = stretches.write_manifest

    def refuse(path: Path, manifest: Any) -> None:
        if path.name.startswith(failing):
            raise OSError("no space left")
        write(path, manifest)

    monkeypatch.setattr(stretches, "write_manifest", refuse)
    before = names(tmp_path)
    with pytest.raises(OSError, match="no space"):
        split_dataset(prefix, tmp_path / "s", Cut("shards", 2))
    assert names(tmp_path) == before
    assert not manifest_path(tmp_path / "s-00000").exists()
