"""Which files a text source consists of, and which of them their names hold out."""

import gzip
import json
from pathlib import Path

import pytest

from data_tools.streams.text_config import TextConfig
from data_tools.text_sources.facts import identity_of
from data_tools.text_sources.parts import held_out_by, parts_of_text
from megatron_patches.errors import Missing, TrainyardError


def write(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def names(text: TextConfig, checkout: Path) -> tuple[list[str], list[str]]:
    found = parts_of_text(text, checkout)
    return [each.name for each in found.training], [each.name for each in found.validation]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("validation.jsonl", "validation"), ("test-00.jsonl", "test"), ("Dev_1.txt", "dev"), ("a/eval/b.jsonl", "eval"),
        ("valid.parquet", "valid"), ("evaluation-2.jsonl", "evaluation"), ("dev", "dev"),
        ("devotion.txt", None), ("testimony-1.jsonl", None), ("validated.jsonl", None), ("train/a.jsonl", None),
        ("my-test.jsonl", None),
    ],
)  # fmt: skip
def test_names_that_hold_out(name: str, word: str | None) -> None:
    assert held_out_by(name) == word


def test_of_a_folder_the_first_kind_is_validated_on_and_none_trained_on(tmp_path: Path) -> None:
    for name in ("a.jsonl", "sub/b.jsonl.gz", "test-0.jsonl", "validation-0.jsonl", "validation-1.jsonl"):
        write(tmp_path / "raw" / name, name)
    text = TextConfig(path="raw")
    assert names(text, tmp_path) == (["a.jsonl", "sub/b.jsonl.gz"], ["validation-0.jsonl", "validation-1.jsonl"])
    assert names(TextConfig(path="raw/*.jsonl"), tmp_path)[1] == []
    assert names(TextConfig(path="raw/test-0.jsonl"), tmp_path) == (["test-0.jsonl"], [])


def test_where_files_lie_is_no_part_of_what_they_are(tmp_path: Path) -> None:
    for folder in ("one", "two/three"):
        write(tmp_path / folder / "a.jsonl", "text")
    one, two = (parts_of_text(TextConfig(path=path), tmp_path) for path in ("one", "two/three"))
    assert identity_of(one) == identity_of(two)
    write(tmp_path / "one" / "a.jsonl", "longer text")
    assert identity_of(parts_of_text(TextConfig(path="one"), tmp_path)) != identity_of(two)


def test_splits_of_a_collection_on_disk(tmp_path: Path) -> None:
    import datasets

    rows = {"train": ["a", "b"], "test": ["c"], "dev": ["d"]}
    collection = {name: datasets.Dataset.from_dict({"text": texts}) for name, texts in rows.items()}
    datasets.DatasetDict(collection).save_to_disk(tmp_path / "set")
    found = parts_of_text(TextConfig(path="hf:set"), tmp_path)
    assert identity_of(found)["split"] == "train" and found.validation_told == "split test"
    assert [b"a" in block.content for part in found.training for block in part.blocks()] == [True]
    assert [b"c" in block.content for part in found.validation for block in part.blocks()] == [True]
    assert identity_of(parts_of_text(TextConfig(path="hf:set", split="dev"), tmp_path))["split"] == "dev"


def test_nothing_to_read(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "test.jsonl", "text")
    with pytest.raises(Missing, match=r"every file of .*raw is held out by its name \(test\)"):
        parts_of_text(TextConfig(path="raw"), tmp_path)
    with pytest.raises(Missing, match=r"no file fits .*/raw/\*\.txt"):
        parts_of_text(TextConfig(path="raw/*.txt"), tmp_path)
    with pytest.raises(TrainyardError, match="does not exist"):
        parts_of_text(TextConfig(path="gone.jsonl"), tmp_path)
