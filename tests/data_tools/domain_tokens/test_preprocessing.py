"""Datasets with tokens of the multiplication table and made-up documents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_tools.data_config import DataConfig
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, SettingsFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.regrouping.shards import Cut, shard_prefix, split_dataset
from data_tools.domain_tokens.arithmetic_documents import arithmetic_document
from data_tools.domain_tokens.multiplication import Mode
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.records.record import RecordForm
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import content_id, read_manifest
from megatron_patches.errors import TrainyardError
from tests.data_tools.domain_tokens.conftest import FIRST_ID
from tools.commands.dataset.tables import contents

Make = Callable[..., Path]
PAIRS = RecordForm("pairs", ("text", "n"), None, " ")
PAIRS = RecordForm("pairs", ("text", "n"), None, " ")
TEXTS = [
    f"Text {number}: 3*4, {number} and 3 x 4 = 12." if number % 2 else f"Text {number}, 2*2=5" for number in range(40)
]


@pytest.fixture
def make(tmp_path: Path, extended_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Preprocesses TEXTS in chunks of three documents, and gives the dataset's prefix."""
    monkeypatch.setattr("data_tools.reading.files.lines_part.BLOCK_BYTES", 128)
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text, "n": "1"}) + "\n" for text in TEXTS))

    def made(name: str, inject: Mode | None = None, made_up: int = 0, seed: int | None = None, **more: Any) -> Path:
        arithmetic = ArithmeticRequest(inject, made_up, seed)
        settings = {"append_eod": True, "arithmetic": arithmetic, "tokenizer": extended_folder, **more}
        preprocess(PreprocessRequest([source], tmp_path / name, **settings))
        return tmp_path / name

    return made


def documents(prefix: Path) -> list[list[int]]:
    return [each.tolist() for each in IndexedDataset(prefix)]


def written(prefix: Path) -> list[bytes]:
    return [prefix.with_name(prefix.name + ending).read_bytes() for ending in (".bin", ".idx")]


def test_what_is_injected_and_what_the_manifest_says(make: Make, extended: Tokenizer) -> None:
    prefix = make("data", "weak")
    of_odd, of_even = documents(prefix)[1], documents(prefix)[0]
    assert [number for number in of_odd if number >= FIRST_ID] == [FIRST_ID + 18] * 2
    assert extended.decode(of_odd) == "Text 1: <MUL_3_4_12>, 1 and <MUL_3_4_12>.<|endoftext|>"
    assert of_even == [*extended.encode(TEXTS[0]), 0]
    manifest, facts = read_dataset_manifest(prefix)
    assert facts.settings is not None and facts.settings.inject == "weak" and facts.injection is not None
    assert (facts.injection.mode, facts.injection.tenths, facts.injection.left_alone) == ("weak", [4] * 10, 20)
    assert facts.injection.bare == facts.injection.with_product == {"<MUL_3_4_12>": 20}
    assert manifest.by.command.endswith("--append-eod --inject weak")
    _, strict = read_dataset_manifest(make("strict", "strict"))
    assert strict.injection is not None
    assert (strict.injection.bare, strict.injection.with_product) == ({}, {"<MUL_3_4_12>": 20})


def test_the_two_conditions_have_the_same_made_up_documents_at_the_same_places(make: Make, extended: Tokenizer) -> None:
    plain, injected = make("plain", None, 10, 7), make("injected", "strict", 10, 7)
    texts = [extended.decode(each).removesuffix("<|endoftext|>") for each in documents(plain)]
    places = [place for place, text in enumerate(texts) if text not in TEXTS]
    assert places == [2 + 5 * number for number in range(10)]
    assert [texts[place] for place in places] == [arithmetic_document(7, number) for number in range(10)]
    assert len(documents(injected)) == 50
    for place, (one, other) in enumerate(zip(documents(plain), documents(injected), strict=True)):
        assert (one == other) == (max(other) < FIRST_ID), place
    facts = read_dataset_manifest(plain)[1]
    assert facts.settings is not None
    assert (facts.documents, facts.settings.synthetic_documents, facts.settings.synthetic_seed) == (50, 10, 7)
    assert [each.documents for each in facts.sources] == [40]
    assert read_manifest(manifest_path(plain)).by.command.endswith("--synthetic-arithmetic 10 --seed 7")
    assert written(make("other", None, 10)) != written(plain)


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_workers(make: Make) -> None:
    one, two = make("one", "weak", 10), make("two", "weak", 10, workers=2)
    assert written(one) == written(two)
    assert read_dataset_manifest(one)[1] == read_dataset_manifest(two)[1]


def test_datasets_made_without_any_of_it_have_the_facts_and_ids_they_had(make: Make) -> None:
    prefix = make("data")
    manifest = read_manifest(manifest_path(prefix))
    settings = {"json_key": "text", "json_keys": ["text"], "append_eod": True, "parse_special": False}
    assert manifest.facts["settings"] == settings
    assert set(manifest.facts) == {
        *("documents", "sequences", "tokens", "dtype", "largest_token_id", "empty_documents", "tokenizer", "settings"),
        *("sources", "number_not_read", "not_read"),
    }
    assert read_dataset_manifest(prefix)[1].tokenizer.as_ids_alone == 45
    facts = DatasetFacts.model_validate(manifest.facts)
    assert content_id("dataset", manifest.parents, manifest.files, facts.model_dump()) == manifest.id
    whole = SettingsFacts(**settings, inject="weak", synthetic_documents=1, synthetic_seed=0)
    assert SettingsFacts.model_validate(whole.model_dump()) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made_up": -1}, "-1 made-up documents"),
        ({"seed": 3}, "--seed 3 has no effect without --synthetic-arithmetic"),
        ({"made_up": 2, "json_keys": ["text", "n"]}, "--json-keys asks for 2; preprocess one key at a time"),
        ({"made_up": 2, "tokens": 9}, "fewer would be in than were asked for; leave out --target-tokens"),
        ({"made_up": 2, "records": PAIRS, "append_eod": False}, "no place among the records of --pairs"),
        ({"made_up": 2, "tokens": 9}, "fewer would be in than were asked for; leave out --target-tokens"),
        ({"made_up": 2, "records": PAIRS}, "no place among the records of --pairs"),
    ],
)
def test_bad_requests(make: Make, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainyardError, match=message):
        make("data", **changes)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]


def test_a_tokenizer_without_the_tokens_is_refused_before_any_work(
    make: Make, tokenizer_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainyardError, match="tools/tokenizer extend"):
        make("data", "weak", tokenizer=tokenizer_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]


def test_each_key_has_a_report_of_its_own(make: Make) -> None:
    prefix = make("data", "weak", json_keys=["text", "n"])
    reports = [read_dataset_manifest(prefix.with_name(f"data_{key}"))[1].injection for key in ("text", "n")]
    assert [None if each is None else each.injected for each in reports] == [40, 0]


@pytest.mark.parametrize("tokens", [1, 60, 61, 200])
def test_what_is_not_written_is_not_counted(make: Make, tokens: int) -> None:
    """Chunks have three documents, and reading ends within one."""
    prefix = make("data", "weak", tokens=tokens)
    counts = [sum(number >= FIRST_ID for number in document) for document in documents(prefix)]
    facts = read_dataset_manifest(prefix)[1].injection
    assert facts is not None and len(counts) < len(TEXTS)
    assert (facts.injected, sum(facts.tenths), facts.documents) == (sum(counts), sum(counts), sum(map(bool, counts)))
    assert facts.left_alone == (len(counts) + 1) // 2


def test_what_is_told_of_a_part(make: Make, tmp_path: Path) -> None:
    prefix = make("data", "weak", 10, 7)
    split_dataset(prefix, tmp_path / "part", Cut("shards", 2))
    whole, part = (
        " ".join(value for _, value in contents(each)) for each in (prefix, shard_prefix(tmp_path / "part", 0))
    )
    assert "10 documents of multiplication facts made up from seed 7" in whole and "(weak), how many" not in whole
    assert "an unknown number of documents of multiplication facts made up from seed 7" in part
    assert "tokens of the multiplication table put in (weak), how many is not known" in part


def test_a_model_that_is_too_small_for_the_tokens_is_refused(make: Make, extended_folder: Path) -> None:
    """Also where the rarest token is in no document, or none of them: the model is asked for all of them."""
    lengths = SampleLengths(9, 8, (("tokens", 8),), 8)
    for mode, size, problem in (
        ("weak", 320, "holds token id 328, model.vocab_size 320 has ids up to 319; set model.vocab_size to 355"),
        ("weak", 340, "was extended to 355 ids, model.vocab_size 340 has ids up to 339; set model.vocab_size to 355"),
        ("weak", 355, ""),
        (None, 340, "was extended to 355 ids"),
        (None, 355, ""),
    ):
        prefix = make(f"data-{mode}-{size}", mode)
        settings = {"path": str(prefix), "tokenizer": str(extended_folder), "split": "3,1", "sequence_length": 8}
        problems = list(RunData(DataConfig.model_validate(settings), Path("/"), lengths).vocabulary_problems(size))
        assert len(problems) == bool(problem) and all(problem in each for each in problems)
