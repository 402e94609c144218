"""Requests at which something was left out, counted wrongly, or never ended."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.preprocessing.progress import Progress
from data_tools.encoding.slots import Slot
from data_tools.reading.files import json_array
from data_tools.reading.files.shards import shard_of
from data_tools.reading.files.sources import parts_of
from data_tools.records.record import RecordForm
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.errors import TrainyardError

Request = Callable[..., PreprocessRequest]
BLOCKS = "data_tools.reading.files.lines_part.BLOCK_BYTES"
PAIRS = RecordForm("pairs", ("text", "answer"), None, " ")


@pytest.fixture
def request_for(tmp_path: Path, tokenizer_folder: Path) -> Request:
    """A request of one file of forty texts, some of them long, with an entry that is none behind every fourth."""
    lines = []
    for number in range(40):
        lines.append(json.dumps({"text": f"number {number} " * (1 + number % 7), "answer": "yes"}))
        lines += ["", '{"text": 5, "answer": 5}'] if number % 4 == 3 else []
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")

    def make(name: str, **settings: Any) -> PreprocessRequest:
        settings = {"inputs": [tmp_path / "a.jsonl"], "tokenizer": tokenizer_folder, "max_bad": 10, **settings}
        return PreprocessRequest(output=tmp_path / "out" / name, **settings)

    return make


def documents(prefix: Path) -> list[list[int]]:
    return [each.tolist() for each in IndexedDataset(prefix)]


@pytest.mark.parametrize("size", [200, 1 << 20])
def test_tokens_are_counted_as_documents_are_cut(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A document that is cut counts with what is left of it: none behind it is passed over."""
    monkeypatch.setattr(BLOCKS, size)
    preprocess(request_for("whole"))
    made = preprocess(request_for("some", max_length=10, tokens=215)).datasets[0]
    found, whole = documents(tmp_path / "out" / "some"), documents(tmp_path / "out" / "whole")
    assert found == [each[:10] for each in whole[: len(found)]] and 215 <= made.facts.tokens < 225 and len(found) < 40
    assert made.facts.shortened_documents == sum(len(each) > 10 for each in whole[: len(found)])


@pytest.mark.parametrize("records", [None, PAIRS])
def test_what_stands_behind_the_last_document_is_not_counted(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch, records: RecordForm | None
) -> None:
    """However blocks are cut, as behind a kill: the number is in the manifest's id."""
    ids = set()
    for size in (100, 333, 1 << 20):
        monkeypatch.setattr(BLOCKS, size)
        ended = request_for(f"of-{size}", tokens=400, append_eod=records is None, records=records)
        made = preprocess(replace(ended, output=tmp_path / str(size) / "data")).datasets[0]
        ids.add((made.facts.left_out, made.facts.documents, made.id))
    [(left_out, number, _)] = ids
    assert left_out == (number - 1) // 4 and 4 < number < 40


@pytest.mark.parametrize("at_once", [1, 3, 1 << 20])
def test_elements_of_an_array_that_are_no_objects_are_left_out(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(json_array, "CHARACTERS_READ_AT_ONCE", at_once)
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a"}, 123456, "x]", [1, [2]], null, true, -1.5e3 , {"text": 5}, {"text": "b"}, 7]')
    told = list[str]()
    made = preprocess(request_for("data", inputs=[path], max_bad=8), tell=told.append).datasets[0]
    assert (made.facts.documents, made.facts.left_out) == (2, 8)
    assert [f"element {number}" in line for number, line in zip((2, 3, 4, 5, 6, 7, 8, 10), told, strict=True)] == [
        True
    ] * 8
    with pytest.raises(TrainyardError, match=r"element 2 is not a JSON object but a number"):
        preprocess(request_for("none", inputs=[path], max_bad=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "train"}, "^--split has no effect without a dataset of hf:"),
        ({"revision": "v1", "streaming": False}, "^--revision and --no-streaming has no effect"),
        ({"share": (7, 10**8)}, "^--shard 7/100000000: give from 1 to 99,999 shards"),
        ({"share": (0, 0)}, "^--shard 0/0: give from 1"),
    ],
)
def test_what_would_have_no_effect_or_no_end_is_refused(
    request_for: Request, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainyardError, match=message):
        preprocess(request_for("data", **settings))


def test_an_empty_one_of_very_many_shards_is_told_at_once(tmp_path: Path, request_for: Request) -> None:
    parts = parts_of(request_for("data").inputs).parts
    with pytest.raises(TrainyardError, match=r"shard 1 of 99,999,999 is empty.*ask for fewer"):
        shard_of(parts, 1, 99_999_999)


@pytest.mark.parametrize("change", ["grows", "replaced"])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(BLOCKS, 200)
    path = tmp_path / "a.jsonl"

    def write(progress: Progress) -> None:
        if progress.documents > 10 and not (tmp_path / "done").exists():
            (tmp_path / "done").touch()
            other = path.read_bytes() + b'{"text": "more"}\n' * (change == "grows")
            (tmp_path / "other").write_bytes(other)
            (tmp_path / "other").replace(path)

    with pytest.raises(TrainyardError, match=r"a\.jsonl changed while it was read: .*start again once nothing writes"):
        preprocess(request_for("data"), write)
    assert not list((tmp_path / "out").glob("data.*n")) and preprocess(request_for("data")).datasets


def test_memory_that_may_not_grow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot()

    def full(*arguments: Any) -> int:
        raise OSError(27, os.strerror(27))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(TrainyardError, match=r"cannot be handed to another process: File too large; .*ulimit -f"):
        slot.put("x")
    slot.close()


def test_progress_of_parts_whose_size_is_not_known_goes_on(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is of streamed shards: the bytes of those that were read count."""
    monkeypatch.setattr("data_tools.reading.files.file_part.FilePart.size", 0, raising=False)
    monkeypatch.setattr(BLOCKS, 200)
    monkeypatch.setattr("data_tools.reading.files.file_part.FilePart.__setattr__", _without_size, raising=False)
    done: list[int] = []
    request = request_for("data", inputs=[tmp_path / "a.jsonl"] * 3, max_bad=30)
    preprocess(request, lambda progress: done.append(progress.done_bytes))
    assert done == sorted(done) and done[-1] > 2 * (tmp_path / "a.jsonl").stat().st_size
    assert read_manifest(manifest_path(tmp_path / "out" / "data")) and read_dataset_manifest(tmp_path / "out" / "data")


def _without_size(part: Any, name: str, value: Any) -> None:
    object.__setattr__(part, name, 0 if name == "size" else value)
