"""`tools/dataset hash`, as a user types it."""

from pathlib import Path

import pytest

from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.splits.document_hashes import open_hashes
from tests.command_line import Call, verb
from tools.commands.dataset import command_line


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.delenv("TRAINYARD_PLANS", raising=False)
    return verb(command_line, monkeypatch, capsys)


def hashes_of(prefix: Path) -> list[int] | None:
    manifest, facts = read_dataset_manifest(prefix)
    hashes = open_hashes(prefix, manifest.id, facts.documents)
    return None if hashes is None else hashes.tolist()


def test_hashes_are_made_once_and_again_where_they_are_damaged(text_dataset: Path, dataset: Call) -> None:
    done = dataset("hash", text_dataset)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{text_dataset}.hashes: hashes of 20 documents, ")
    made = hashes_of(text_dataset)
    assert made is not None and len(set(made)) == 20
    assert dataset("hash", text_dataset).stdout == f"{text_dataset}: the hashes of 20 documents are there\n"
    path = text_dataset.with_name("texts.hashes")
    path.write_bytes(path.read_bytes()[:-8])
    done = dataset("hash", text_dataset)
    assert "made again: " in done.stderr and "hashes of 20 documents, " in done.stdout
    assert hashes_of(text_dataset) == made


def test_a_dataset_that_was_made_again_gets_hashes_of_its_own(
    text_dataset: Path, tokenizer_folder: Path, tmp_path: Path, dataset: Call
) -> None:
    dataset("hash", text_dataset)
    before = hashes_of(text_dataset)
    preprocess(PreprocessRequest([tmp_path / "texts.jsonl"], text_dataset, tokenizer_folder, overwrite=True))
    assert hashes_of(text_dataset) is None
    assert dataset("hash", text_dataset).returncode == 0
    assert hashes_of(text_dataset) not in (None, before)


def test_all_are_looked_at_before_the_first_is_read(text_dataset: Path, tmp_path: Path, dataset: Call) -> None:
    done = dataset("hash", text_dataset, tmp_path / "none")
    assert done.returncode == 2 and "none.bin does not exist" in done.stderr
    assert not text_dataset.with_name("texts.hashes").exists()
    manifest_path(text_dataset).unlink()
    done = dataset("hash", text_dataset)
    assert done.returncode == 2 and "tools/dataset adopt" in done.stderr
