"""The record of a launch's data: what paths named when it began, bounded however much that is."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_tools.data_config import DataConfig
from data_tools.data_record import DATASETS_NAMED, record_of
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths


def recorded(tokenizer: Path, **settings: Any) -> dict[str, Any]:
    config = DataConfig.model_validate({"tokenizer": str(tokenizer), "sequence_length": 8, **settings})
    data = RunData(config, Path("/nowhere"), SampleLengths(9, 8, (("tokens", 8),), 8))
    found: dict[str, Any] = json.loads(json.dumps(record_of(data, data.plan(8, 1))))
    return found


@pytest.fixture
def shards(text_dataset: Path, tmp_path: Path) -> str:
    """A pattern that fits three copies of a dataset."""
    return copies(text_dataset, tmp_path, 3)


def copies(dataset: Path, folder: Path, number: int) -> str:
    """The same dataset in several folders, and the pattern that fits them."""
    for part in reversed(range(number)):
        (folder / f"part-{part}").mkdir(parents=True)
        for ending in ("bin", "idx", "manifest.json"):
            shutil.copyfile(f"{dataset}.{ending}", folder / f"part-{part}" / f"{dataset.name}.{ending}")
    return str(folder / "part-*" / dataset.name)


def test_one_dataset_and_its_split(text_dataset: Path, tokenizer_folder: Path) -> None:
    found = recorded(tokenizer_folder, path=str(text_dataset), split="3,1")
    (source,), (group,) = found["sources"], found["validation"]
    (dataset,) = source["datasets"]["named"]
    assert dataset["path"] == str(text_dataset) and len(dataset["id"]) == 64
    line = f"{dataset['id']} {dataset['path']}\n"
    assert source["datasets"] == {"count": 1, "hash": hashlib.sha256(line.encode()).hexdigest(), "named": [dataset]}
    assert (source["planned_samples"], source["planned_epochs"]) == (8, 8 / source["samples"])
    assert (group["name"], group["read"], group["sources"][0]["path"]) == ("validation", 1, str(text_dataset))


def test_many_datasets_are_counted_and_hashed(
    text_dataset: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = copies(text_dataset, tmp_path / "many", 4)
    monkeypatch.setattr("data_tools.data_record.DATASETS_NAMED", 5)
    monkeypatch.setattr("data_tools.data_record.ENTRIES", 3)
    many = [{"name": f"s{number}", "path": pattern} for number in range(2)]
    one = [{"name": f"t{number}", "path": str(text_dataset)} for number in range(2)]
    found = recorded(tokenizer_folder, sources=[*many, *one], validation=[{**each, "range": "0.5:1"} for each in one])
    named = [len(each["datasets"].get("named", [])) for each in found["sources"]]
    assert named == [4, 0, 1] and found["further_sources"] == 1 and "further_groups" not in found
    assert [each["datasets"]["count"] for each in found["sources"]] == [4, 4, 1]
    assert found["sources"][0]["datasets"]["hash"] == found["sources"][1]["datasets"]["hash"]
    assert "named" not in found["validation"][0]["sources"][0]["datasets"], "there was no room left"
    assert DATASETS_NAMED == 256


def test_many_sources_of_many_groups_are_counted(
    text_dataset: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All groups share the room for sources: 500 of 500 each would make a line that is too long to be read again."""
    monkeypatch.setattr("data_tools.data_record.ENTRIES", 3)
    parts = [{"name": f"p{number}", "path": str(text_dataset), "range": "0.5:1"} for number in range(2)]
    groups = [{"name": f"g{number}", "sources": parts} for number in range(4)]
    sources = [{"name": "s", "path": str(text_dataset), "range": "0:0.5"}]
    found = recorded(tokenizer_folder, sources=sources, validation=groups)
    assert [len(each["sources"]) for each in found["validation"]] == [2, 1, 0] and found["further_groups"] == 1
    assert [each.get("further_sources") for each in found["validation"]] == [None, 1, 2]


def test_what_a_pattern_fits_is_seen_in_the_hash(shards: str, tokenizer_folder: Path) -> None:
    def described() -> dict[str, Any]:
        datasets: dict[str, Any] = recorded(tokenizer_folder, sources=[{"name": "all", "path": shards}])["sources"][0]
        return datasets["datasets"]

    before = described()
    assert [Path(each["path"]).parent.name for each in before["named"]] == ["part-0", "part-1", "part-2"]
    shutil.rmtree(Path(before["named"][1]["path"]).parent)
    after = described()
    assert (after["count"], len({before["hash"], after["hash"]})) == (2, 2)
