"""Sources of a run: which datasets and documents they read, and what is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data_tools import opened_sources
from data_tools.data_config import DataConfig
from data_tools.data_warnings import data_warnings
from data_tools.datasets import indexed_dataset
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.opened_sources import in_silence, prefixes_of
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths
from data_tools.sources_config import SourceConfig
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import names_in
from tests.data_tools.conftest import TEXTS

Config = Callable[..., DataConfig]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A folder with `part-0`, `part-1` and `part-2` of 20 documents each, and `other` of 30."""
    folder = tmp_path_factory.mktemp("shards")
    for number, name in enumerate(["part-0", "part-1", "part-2", "other"]):
        texts = [f"{number}: {text}" for text in (TEXTS + TEXTS[:10] if name == "other" else TEXTS)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        preprocess(PreprocessRequest([folder / f"{name}.jsonl"], folder / name, tokenizer_folder, append_eod=True))
    return folder


@pytest.fixture
def config(shards: Path, tokenizer_folder: Path) -> Config:
    def make(**changes: object) -> DataConfig:
        settings = {"tokenizer": str(tokenizer_folder), "sequence_length": 8, "max_epochs": 9}
        usual = {} if "validation" in changes else {"split": "3,1"}
        return DataConfig.model_validate({**settings, **usual, **changes})

    return make


def opened(config: DataConfig, place_after: Callable[[int], int] | None = None) -> RunData:
    length = config.sequence_length
    return RunData(
        config, Path("/nowhere"), SampleLengths(length + 1, length, (("tokens", length),), length), place_after
    )


def source(folder: Path, name: str, **changes: object) -> dict[str, Any]:
    return {"name": name, "path": str(folder / name), **changes}


def test_a_pattern_reads_its_datasets_one_after_the_other(config: Config, shards: Path) -> None:
    """Range and split cut all documents together: of 60 documents the first 45 are 2.25 datasets."""
    data = opened(config(sources=[source(shards, "parts", path=str(shards / "part-*"))]))
    datasets = [IndexedDataset(shards / f"part-{number}") for number in range(3)]
    assert [shard.prefix.name for shard in data.sources[0].shards] == ["part-0", "part-1", "part-2"]
    training, validation = data.sources[0].training, data.sources[0].validation
    assert (training.documents, validation.documents) == (45, 15)
    boundary = datasets[2].document_token_offset(5)
    assert training.tokens == len(datasets[0].tokens) + len(datasets[1].tokens) + boundary
    assert validation.tokens == len(datasets[2].tokens) - boundary
    in_first = (len(datasets[0].tokens) - 1) // 8
    assert np.array_equal(training.samples[in_first]["tokens"], datasets[1].tokens[:9])
    assert np.array_equal(validation.samples[0]["tokens"], datasets[2].tokens[boundary : boundary + 9])


@pytest.mark.parametrize(
    ("changes", "documents"),
    [
        ({}, [20, 20, 20]),
        ({"shards": "1:"}, [20, 20]),
        ({"shards": ":1"}, [20]),
        ({"range": "0.5:1"}, [0, 10, 20]),
        ({"range": "0:0.25"}, [15, 0, 0]),
        ({"shards": "1:3", "range": "0.25:0.75"}, [10, 10]),
        ({"range": "0.999226:1"}, [0, 0, 0]),
    ],
)
def test_ranges_and_shards(config: Config, shards: Path, changes: dict[str, str], documents: list[int]) -> None:
    data = opened(config(sources=[source(shards, "parts", path=str(shards / "part-*"), **changes)], split="100"))
    assert [
        len(np.concatenate([*each.blocks(100), np.empty(0)])) for each in data.sources[0].training.selections
    ] == documents


def test_a_prefix_with_the_characters_of_patterns(shards: Path, tmp_path: Path) -> None:
    for file in shards.glob("part-0.*"):
        shutil.copy(file, tmp_path / file.name.replace("part-0", "a[1]*"))
    assert prefixes_of(SourceConfig(name="a", path=str(tmp_path / "a[1]*")), Path()) == [tmp_path / "a[1]*"]


def test_identity(config: Config, shards: Path) -> None:
    """It changes with weights, documents and datasets, and not with where these lie or what comes later."""
    two = [source(shards, "part-0", weight=3), source(shards, "other")]
    identity = opened(config(sources=two)).identity
    assert identity["blend"] == [["part-0", 49152], ["other", 16384]] and "datasets" not in identity
    for changed in (
        [source(shards, "part-0", weight=2), two[1]],
        [source(shards, "part-0", weight=3, range="0:0.5"), two[1]],
        [source(shards, "part-0", weight=3, path=str(shards / "part-1")), two[1]],
        [source(shards, "renamed", weight=3, path=str(shards / "part-0")), two[1]],
        [source(shards, "part-0", weight=3, order="file"), two[1]],
        [*two[::-1], source(shards, "part-1")],
    ):
        assert opened(config(sources=changed)).identity != identity
    one = opened(config(path=str(shards / "part-0")))
    assert one.identity == {"dataset": one.dataset_ids[0]}
    named = source(shards, "data", path=str(shards / "part-0"))
    assert opened(config(sources=[named])).identity == one.identity
    assert opened(config(sources=[{**named, "order": "file"}])).identity not in (one.identity, identity)


def test_a_source_in_file_order(config: Config, shards: Path) -> None:
    """The samples of its datasets, one after the other, in each epoch."""
    data = opened(config(sources=[source(shards, "parts", path=str(shards / "part-*"), order="file")]))
    training, length = data.training(seed=3), len(data.datasets[0].training.samples)
    assert training.locate(np.arange(2 * length + 1)).number.tolist() == [*range(length)] * 2 + [0]
    in_order = data.datasets[0].training.samples
    assert all(np.array_equal(training[length + at]["tokens"], in_order[at]["tokens"]) for at in (0, 7, length - 1))


def test_groups_have_their_own_documents(config: Config, shards: Path) -> None:
    groups = [
        source(shards, "tail", path=str(shards / "part-0"), range="0.75:1"),
        {"name": "mix", "sources": [source(shards, "part-1"), source(shards, "other", weight=2)]},
    ]
    settings = config(path=str(shards / "part-0"), validation=groups)
    assert settings.split == "100" and settings.group_names == ("tail", "mix")
    data = opened(settings)
    dataset = IndexedDataset(shards / "part-0")
    boundary = dataset.document_token_offset(15)
    assert list(data.validation) == ["tail", "mix"]
    assert np.array_equal(data.validation["tail"][0]["tokens"], dataset.tokens[boundary : boundary + 9])
    plan = data.check(300, 10, 5)
    assert [(each.name, each.read) for each in plan.groups] == [("tail", 5), ("mix", 5)]
    with pytest.raises(TrainyardError, match=r"evaluation.samples is 1,000, validation group tail has \d+ windows"):
        data.check(300, 10, 1000)


def test_what_each_source_gives_is_planned_and_bounded(config: Config, shards: Path) -> None:
    two = [source(shards, "part-0", weight=3), source(shards, "other", max_epochs=0.2)]
    data = opened(config(sources=two))
    plan = data.plan(40, 0)
    assert [each.planned_samples for each in plan.sources] == [30, 10]
    assert [text.partition(":")[0] for _, text in plan.describe()][1:3] == ["part-0", "other"]
    with pytest.raises(TrainyardError, match=r"10 samples of source other = .* max_epochs of source other allows 0.2"):
        data.check(300, 40, 0)


def test_a_change_brings_other_sources_from_a_place_on(config: Config, shards: Path) -> None:
    changes = [
        {"from_step": 5, "sources": [source(shards, "other"), source(shards, "data", path=str(shards / "part-0"))]}
    ]
    data = opened(config(path=str(shards / "part-0"), changes=changes), lambda step: step * 4)
    samples = data.training(seed=1)
    located = samples.locate(np.arange(40))
    assert [each.name for each in data.sources] == ["data", "other"]
    assert set(located.source[:20].tolist()) == {0} and sorted(located.source[20:22].tolist()) == [0, 1]
    alone = opened(config(path=str(shards / "part-0"))).training(seed=1)
    of_first = located.number[located.source == 0]
    assert np.array_equal(of_first, alone.locate(np.arange(len(of_first))).number)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "neither path nor sources is given"),
        ({"path": "a", "sources": [{"name": "a", "path": "a"}]}, "write path: null"),
        ({"sources": [{"name": "a", "path": "a"}, {"name": "a", "path": "b"}]}, "two have the name a"),
        ({"sources": [{"name": "a", "path": "a", "weight": 0}]}, "greater than 0"),
        ({"sources": [{"name": "a", "path": "a", "weight": "much"}]}, "valid number"),
        ({"sources": [{"name": "a", "path": "a", "weight": float("inf")}]}, "positive, finite"),
        ({"sources": [{"name": "a/b", "path": "a"}]}, "'a/b' is no name"),
        ({"sources": [{"name": "a", "path": "a", "range": "0.5"}]}, "is not two shares"),
        ({"sources": [{"name": "a", "path": "a", "range": "0.5:0.5"}]}, "has nothing between"),
        ({"sources": [{"name": "a", "path": "a", "range": "nan:1"}]}, "is not two shares"),
        ({"sources": [{"name": "a", "path": "a", "shards": "2:1"}]}, "has no shard in it"),
        ({"sources": [{"name": "a", "path": "a", "shards": "x"}]}, "is no range of shards"),
        ({"path": "a", "validation": [{"name": "v", "path": "b"}, {"name": "v", "path": "c"}]}, "two have the name v"),
        ({"path": "a", "split": "9,1", "validation": [{"name": "v", "path": "b"}]}, "split 9,1 leaves documents"),
        (
            {"path": "a", "validation": [{"name": "v", "sources": [{"name": "b", "path": "b", "max_epochs": 2.0}]}]},
            "validation reads nothing twice",
        ),
        ({"path": "a", "changes": [{"from_step": 5, "sources": [{"name": "data", "path": "b"}]}]}, "a name of its own"),
        (
            {"path": "a", "changes": [{"from_step": 5, "sources": [{"name": "data", "path": "a", "order": "file"}]}]},
            "source data reads a at first and a order file from a change on",
        ),
        ({"sources": [{"name": "a", "text": "b.txt", "order": "file"}]}, "text.shuffle_documents 1"),
        (
            {"path": "a", "validation": [{"name": "v", "sources": [{"name": "b", "path": "b", "order": "file"}]}]},
            "order of b has no effect",
        ),
        (
            {"path": "a", "changes": [{"from_step": at, "sources": [{"name": "b", "path": "b"}]} for at in (5, 5)]},
            "put them in order, each step once",
        ),
    ],
)
def test_sections_that_cannot_be(config: Config, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_patterns_that_fit_nothing(config: Config, shards: Path) -> None:
    with pytest.raises(Missing, match=r"source none: no dataset fits .*none-\* \(looked for .idx files\)"):
        opened(config(sources=[source(shards, "none", path=str(shards / "none-*"))]))
    with pytest.raises(Missing, match="shards 3: reaches beyond the 3 shards"):
        opened(config(sources=[source(shards, "parts", path=str(shards / "part-*"), shards="3:")]))
    with pytest.raises(TrainyardError, match=r"gone.bin does not exist"):
        opened(config(sources=[source(shards, "gone")]))


def test_a_source_shorter_than_a_window_is_named(config: Config, shards: Path) -> None:
    two = [source(shards, "part-0"), source(shards, "other", range="0:0.03")]
    with pytest.raises(TrainyardError, match=r"the training split of source other, .* one sample needs 65; give more"):
        opened(config(sources=two, sequence_length=64)).check(300, 2, 0)


def test_the_order_of_sources_is_part_of_the_identity(config: Config, shards: Path) -> None:
    """Of two that are due at once the first is read: swapped, a resume would read other samples."""
    pair = [source(shards, "part-0"), source(shards, "other")]
    one, two = (opened(config(sources=each)) for each in (pair, pair[::-1]))
    first = [data.sources[data.training(0).locate(np.array([0])).source[0]].name for data in (one, two)]
    assert first == ["part-0", "other"] and one.identity != two.identity


def test_a_range_means_what_it_says_however_it_is_spelled(config: Config, shards: Path) -> None:
    def identity(name: str, range_: str) -> object:
        return opened(config(sources=[{**source(shards, "part-0", range=range_), "name": name}])).identity

    assert identity("a", "0:1") == identity("a", ":") == identity("a", "0.0:1.0") != identity("a", "0:0.5")
    assert identity("data", ":") == {"dataset": opened(config(path=str(shards / "part-0"))).dataset_ids[0]}


def test_the_epochs_of_a_source_hold_for_all_that_is_read_of_it(config: Config, shards: Path) -> None:
    def of(*limits: float | None) -> DataConfig:
        first, later = ([source(shards, "part-0", max_epochs=limit)] for limit in limits)
        return config(sources=first, changes=[{"from_step": 2, "sources": later}])

    assert [of(*each).all_sources[0].max_epochs for each in ((4, None), (None, 4), (4, 4))] == [4, 4, 4]
    with pytest.raises(ValidationError, match="max_epochs 4 at first and 2 from a change on"):
        of(4, 2)


@pytest.mark.parametrize("path", ["x" * 5000, "/tmp/" + "x" * 300, "[" + "x" * 300 + "]*"])
def test_a_path_that_no_file_system_takes(config: Config, path: str) -> None:
    with pytest.raises(Missing, match=r"does not exist|no dataset fits"):
        opened(config(path=path))


def test_a_dataset_that_may_not_be_read(config: Config, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(indexed_dataset, "read_header", refuse)
    with pytest.raises(TrainyardError, match=r"part-0 cannot be read \(Permission denied\); give this user"):
        opened(config(path=str(shards / "part-0")))


def test_a_folder_of_many_sources_is_gone_through_once(
    config: Config, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def look(folder: Path) -> list[str]:
        seen.append(folder)
        return names_in(folder)

    monkeypatch.setattr(opened_sources, "names_in", look)
    patterns = ["part-*", "oth*", "[op]*", "*/nothing", ".*"]
    folders: dict[str, list[str]] = {}
    for pattern in patterns:
        each = SourceConfig(name="s", path=str(shards / pattern))
        found: list[object] = []
        for known in (folders, None):
            try:
                found.append(prefixes_of(each, Path("/nowhere"), known))
            except Missing as error:
                found.append(str(error))
        assert found[0] == found[1], pattern
    assert seen == [shards]


def test_a_group_without_a_name_is_told_once(config: Config, shards: Path) -> None:
    with pytest.raises(ValidationError) as raised:
        config(path=str(shards / "other"), validation=[{"path": str(shards / "part-0")}])
    assert [each["loc"] for each in raised.value.errors()] == [("validation", 0, "name")]
    with pytest.raises(ValidationError, match="two have the name part-0"):
        twice = [source(shards, "part-0"), source(shards, "part-0")]
        config(path=str(shards / "other"), validation=[{"name": "v", "sources": twice}])


def test_the_source_that_ends_validation_is_named(config: Config, shards: Path) -> None:
    two = [source(shards, "other"), source(shards, "part-0", range="0:0.05")]
    named = config(path=str(shards / "other"), validation=[{"name": "v", "sources": two}])
    for data in (opened(config(sources=two)), opened(named)):
        (problem,) = data.validation_problems(1000)
        assert "source part-0" in problem and "in proportion to the weights" in problem
        assert "source other" not in problem


@pytest.mark.parametrize("by", ["file_order", "document_hash"])
def test_documents_that_two_sources_read_are_told(config: Config, shards: Path, by: str) -> None:
    def told(*ranges: str) -> list[str]:
        sources = [{**source(shards, "other", range=each), "name": f"s{n}"} for n, each in enumerate(ranges)]
        return [each for each in data_warnings(opened(config(sources=sources, split_by=by))) if "are read as" in each]

    assert told("0:0.5", "0.5:1") == []
    (warning,) = told("0:1", "0.5:1")
    assert "documents for training are read as part of sources s0 and s1, such as document" in warning


def test_held_out_documents_that_are_trained_on_are_told_without_hashes(
    config: Config, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.data_warnings.TOKENS_HASHED_UNASKED", 0)
    path = str(shards / "part-1")

    def told(range_: str) -> str:
        data = opened(config(sources=[source(shards, "part-1", range="0:0.9")], validation=[
            {"name": "v", "path": path, "range": range_}
        ]))  # fmt: skip
        (warning,) = data_warnings(data)
        return warning

    assert "4 documents of validation group v are trained on too, from document 14 of" in told("0.7:1")
    assert "was not looked for" in told("0.9:1")


def test_a_stream_is_no_overlap_whatever_it_is_split_by(config: Config, shards: Path) -> None:
    for by in ("file_order", "document_hash"):
        (plan,) = opened(config(path=str(shards / "other"), split_by=by)).check(300, 10, 0).sources
        assert (plan.how_cut, plan.cut_into) == ("no overlap, no padding", "windows of 8")


def test_more_places_than_an_order_has(config: Config, shards: Path) -> None:
    with pytest.raises(TrainyardError, match=r"places end with 2\*\*53; give fewer training.steps"):
        opened(config(path=str(shards / "other"))).check(300, 10**17, 0)


def test_samples_are_called_what_they_are(config: Config, shards: Path) -> None:
    data = opened(config(path=str(shards / "other"), samples="packs"))
    with pytest.raises(TrainyardError, match=r"epochs of the [0-9]+ packs of 9 in the training split"):
        data.check(300, 10**6, 0)
    assert "packs (" in dict(data.plan(10, 1).describe())["validation data"]


def test_of_a_group_without_a_sample_it_is_said_what_left_its_texts_out(config: Config, shards: Path) -> None:
    groups = [source(shards, "held", path=str(shards / "part-1"))]
    filtered = {"name": "windows", "filters": {"minimum_characters": 1000}}
    data = opened(config(path=str(shards / "part-0"), validation=groups, samples=filtered))
    (problem,) = data.validation_problems(2)
    assert "group held has 0 windows" in problem and "by minimum_characters); lower it" in problem


@pytest.mark.parametrize(
    ("prepare", "length", "expected"), [(None, 8, True), (None, 1 << 14, False), ("makes", 8, False)]
)
def test_ranks_read_short_samples_here_and_there(
    config: Config, shards: Path, tmp_path: Path, prepare: str | None, length: int, expected: bool
) -> None:
    """What the kernel notes of the map: `rr`, no reading ahead. Who makes hashes and plans reads from end to end."""
    for file in shards.glob("part-0.*"):
        shutil.copy(file, tmp_path / file.name)
    lengths = SampleLengths(length + 1, length, (("tokens", length),), length)
    settings = config(path=str(tmp_path / "part-0"), sequence_length=length)
    data = RunData(settings, Path("/nowhere"), lengths, prepare=None if prepare is None else in_silence)
    assert data.sources[0].training.tokens
    maps = Path("/proc/self/smaps").read_text().split(str(tmp_path / "part-0.bin"))[1:]
    flags = [next(line for line in each.splitlines() if line.startswith("VmFlags")).split() for each in maps]
    assert flags and all(("rr" in each) == expected for each in flags)
