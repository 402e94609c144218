import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.preprocessing.progress import Progress
from data_tools.datasets.preprocessing.tokenizing import Tokenizing
from data_tools.datasets.regrouping.merge import merge_datasets
from data_tools.datasets.regrouping.shards import Cut, split_dataset
from data_tools.records.record import RecordForm
from data_tools.text.tokenizer_training import train_bpe
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import Status, read_manifest, verify_files, write_manifest
from megatron_patches.errors import TrainyardError

Request = Callable[..., PreprocessRequest]
SUFFIXES = (".bin", ".idx", ".manifest.json")


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def outputs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def request_for(tmp_path: Path, tokenizer_folder: Path) -> Request:
    """A request whose output is tmp_path/out/data."""

    def make(inputs: Sequence[Path], **settings: Any) -> PreprocessRequest:
        return PreprocessRequest(inputs, tmp_path / "out" / "data", tokenizer_folder, **settings)

    return make


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small source makes many blocks."""
    monkeypatch.setattr("data_tools.reading.files.lines_part.BLOCK_BYTES", 64)


def test_documents_are_the_tokenized_texts(tmp_path: Path, request_for: Request, small_chunks: None) -> None:
    texts = ["one", "two two", "", "four\n" * 50, "\u4e2d"]
    first = write_jsonl(tmp_path / "b.jsonl", [{"text": text} for text in texts[:4]])
    second = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts[4:]])
    progress: list[Progress] = []
    request = request_for([first, second], append_eod=True)
    summary = preprocess(request, progress.append)
    tokenizer = load_tokenizer(request.tokenizer)
    dataset = IndexedDataset(request.output)
    assert dataset.dtype == np.uint16
    assert [each.tolist() for each in dataset] == [[*tokenizer.encode(text), 0] for text in texts if text]
    assert (dataset.document_lengths(0, 5) == 0).tolist() == [not text for text in texts]

    manifest, facts = read_dataset_manifest(request.output)
    assert verify_files(manifest, request.output.parent, hashes=True) == []
    assert manifest.parents == [tokenizer.id]
    assert summary.datasets[0].id == manifest.id
    assert (facts.documents, facts.sequences, facts.tokens) == (5, 4, len(dataset.tokens))
    assert (facts.empty_documents, facts.largest_token_id) == (1, int(dataset.tokens.max()))
    assert [(source.name, source.documents) for source in facts.sources] == [("b.jsonl", 4), ("a.jsonl", 1)]
    assert facts.tokenizer.model_dump() == {
        "id": tokenizer.id, "name": "bpe", "vocab_size": 300, "end_of_document": 0
    }  # fmt: skip
    assert summary.text_bytes == sum(len(text.encode()) for text in texts)
    total = first.stat().st_size + second.stat().st_size
    assert progress[-1] == Progress("reading", 5, facts.tokens, total, total)


def test_no_manifest_holds_a_path_of_this_machine(tmp_path: Path, request_for: Request) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    request = request_for([source])
    preprocess(request)
    assert str(tmp_path) not in manifest_path(request.output).read_text()
    assert str(request.tokenizer.parent) not in manifest_path(request.output).read_text()


def test_the_result_does_not_depend_on_the_workers(tmp_path: Path, request_for: Request, small_chunks: None) -> None:
    """Chunks of very different length, so that workers finish out of order."""
    texts = ["long text, " * (3000 if number % 6 == 0 else 1) + str(number) for number in range(40)]
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    results = []
    for workers in (1, 3):
        request = request_for([source], append_eod=True, workers=workers, overwrite=True)
        preprocess(request)
        files = [request.output.with_name(f"data{suffix}").read_bytes() for suffix in SUFFIXES[:2]]
        results.append((*files, read_dataset_manifest(request.output)[0].id))
    assert results[0] == results[1]


def test_pairs_stay_aligned_with_empty_texts(tmp_path: Path, request_for: Request, small_chunks: None) -> None:
    pairs = [("q1", "a1"), ("", "a2"), ("q3", ""), ("", ""), ("q5", "a5")]
    source = write_jsonl(tmp_path / "a.jsonl", [{"q": question, "a": answer} for question, answer in pairs])
    request = request_for([source], json_keys=("q", "a"))
    preprocess(request)
    tokenizer = load_tokenizer(request.tokenizer)
    assert outputs(tmp_path / "out") == {f"data_{key}{suffix}" for key in "qa" for suffix in SUFFIXES}
    for column, key in enumerate("qa"):
        dataset = IndexedDataset(tmp_path / "out" / f"data_{key}")
        texts = [pair[column] for pair in pairs]
        assert [tokenizer.decode(document.tolist()) for document in dataset] == list(filter(None, texts))
        assert (dataset.document_lengths(0, len(pairs)) == 0).tolist() == [not text for text in texts]
        assert read_dataset_manifest(tmp_path / "out" / f"data_{key}")[1].empty_documents == 2


def test_a_folder_of_texts(tmp_path: Path, request_for: Request) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.txt", "a.txt"):
        (tmp_path / "in" / name).write_text(f"text of {name}")
    request = request_for([tmp_path / "in"])
    preprocess(request)
    tokenizer = load_tokenizer(request.tokenizer)
    texts = [tokenizer.decode(document.tolist()) for document in IndexedDataset(request.output)]
    assert texts == ["text of a.txt", "text of b.txt"]


def test_sentencepiece(tmp_path: Path, sentencepiece_model: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "the dog"}, {"text": "the fox"}])
    preprocess(PreprocessRequest([source], tmp_path / "data", sentencepiece_model, append_eod=True))
    tokenizer = load_tokenizer(sentencepiece_model)
    expected = [[*tokenizer.encode(text), 2] for text in ("the dog", "the fox")]
    assert [document.tolist() for document in IndexedDataset(tmp_path / "data")] == expected


def test_an_existing_dataset_is_replaced_only_when_asked(tmp_path: Path, request_for: Request) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "old"}])
    request = request_for([source])
    preprocess(request)
    before = {suffix: request.output.with_name(f"data{suffix}").read_bytes() for suffix in SUFFIXES}
    write_jsonl(source, [{"text": "new text"}])
    with pytest.raises(TrainyardError, match=r"data.bin exists already.*--overwrite"):
        preprocess(request)
    assert {suffix: request.output.with_name(f"data{suffix}").read_bytes() for suffix in SUFFIXES} == before
    preprocess(request_for([source], overwrite=True))
    _, facts = read_dataset_manifest(request.output)
    assert facts.tokens == len(load_tokenizer(request.tokenizer).encode("new text"))
    assert outputs(tmp_path / "out") == {f"data{suffix}" for suffix in SUFFIXES}


FINISHED: dict[str, dict[str, Any]] = {
    "texts": {},
    "two keys": {"json_keys": ("text", "title")},
    "pairs": {"records": RecordForm("pairs", ("text", "title"), None, " ")},
    "a share": {"share": (1, 2)},
    "the beginning": {"tokens": 20},
    "shuffled": {"shuffle_seed": 3},
    "bad ones left out": {"max_bad": 5},
}


@pytest.mark.parametrize("case", FINISHED)
def test_the_same_command_over_a_finished_dataset_does_nothing(
    tmp_path: Path, request_for: Request, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"text": f"text {number}", "title": "title"} for number in range(40)]
    sources = [write_jsonl(tmp_path / name, records) for name in ("a.jsonl", "b.jsonl")]
    if case == "bad ones left out":
        sources[0].write_text(sources[0].read_text() + "no JSON\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(sources.pop().read_bytes()))
    request = request_for([*sources, tmp_path / "b.jsonl.gz"], **FINISHED[case])
    made = preprocess(request)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (tmp_path / "out").iterdir()}
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizing, "run", lambda *given: pytest.fail("it tokenizes"))
        again = preprocess(request, tell=told.append)
    assert (again.datasets, again.bad, again.text_bytes) == (made.datasets, made.bad, 0)
    assert told == ["note: the same command finished this before; add --overwrite to make it again"]
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in (tmp_path / "out").iterdir()} == before
    preprocess(replace(request, overwrite=True, workers=2))
    assert before != {path: (path.stat().st_ino, path.read_bytes()) for path in (tmp_path / "out").iterdir()}


CHANGES: dict[str, Callable[[PreprocessRequest], PreprocessRequest]] = {
    "an option": lambda request: replace(request, append_eod=True),
    "the longest document": lambda request: replace(request, largest_document=1 << 20),
    "bad ones": lambda request: replace(request, max_bad=1),
    "an input more": lambda request: replace(request, inputs=[*request.inputs, *request.inputs]),
    "an input's content": lambda request: Path(request.inputs[0]).write_text('{"text": "new"}\n') and request,
    "an input's time": lambda request: os.utime(request.inputs[0]) or request,
    "no index": lambda request: request.output.with_name("data.idx").unlink() or request,
    "a shorter file": lambda request: os.truncate(request.output.with_name("data.bin"), 2) or request,
    "no manifest": lambda request: manifest_path(request.output).unlink() or request,
    "a damaged manifest": lambda request: manifest_path(request.output).write_text("{}") and request,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_dataset_of_another_request_is_refused(tmp_path: Path, request_for: Request, change: str) -> None:
    request = request_for([write_jsonl(tmp_path / "a.jsonl", [{"text": "old"}])])
    preprocess(request)
    changed = CHANGES[change](request)
    before = outputs(tmp_path / "out")
    with pytest.raises(TrainyardError, match=r"exists already.*--overwrite"):
        preprocess(changed)
    assert outputs(tmp_path / "out") == before


def test_a_dataset_of_another_tokenizer_is_refused(tmp_path: Path, request_for: Request) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "some text to learn from " * 9}])
    request = request_for([source])
    preprocess(request)
    train_bpe([source], tmp_path / request.tokenizer.name, 260)
    with pytest.raises(TrainyardError, match="exists already"):
        preprocess(replace(request, tokenizer=tmp_path / request.tokenizer.name))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_in_the_middle_leaves_nothing_new(
    tmp_path: Path, request_for: Request, small_chunks: None, workers: int
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "good"}] * 7)
    preprocess(request_for([source]))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    source.write_text(source.read_text() + '{"text": "cut')
    with pytest.raises(TrainyardError, match=r"a.jsonl, line 8 is not JSON"):
        preprocess(request_for([source], overwrite=True, workers=workers))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_crash_while_writing_one_of_two_datasets_leaves_nothing(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"q": "x", "a": "y"}])
    finish = IndexedDatasetWriter.finish

    def fail_for_the_second(writer: IndexedDatasetWriter) -> None:
        if writer.prefix.name == "data_a":
            raise OSError("no space left")
        finish(writer)

    monkeypatch.setattr(IndexedDatasetWriter, "finish", fail_for_the_second)
    with pytest.raises(OSError, match="no space"):
        preprocess(request_for([source], json_keys=("q", "a")))
    assert outputs(tmp_path / "out") == set()


def test_a_crash_between_the_files_of_a_replacement_is_never_taken_for_whole(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old tokens with as many new ones fit the new index, so only the missing manifest can tell."""
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    request = request_for([source], overwrite=True)
    preprocess(request)
    write_jsonl(source, [{"text": "eno"}])
    replace = Path.replace

    def fail_for_the_tokens(path: Path, target: Path) -> Path:
        if target.suffix == ".bin":
            raise OSError("no space left")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_tokens)
    with pytest.raises(OSError, match="no space"):
        preprocess(request)
    assert outputs(tmp_path / "out") == {"data.bin", "data.idx", "data.unfinished"}
    with pytest.raises(TrainyardError, match="has no manifest"):
        read_dataset_manifest(request.output)
    monkeypatch.undo()
    preprocess(request)
    assert outputs(tmp_path / "out") == {f"data{suffix}" for suffix in SUFFIXES}
    assert verify_files(read_dataset_manifest(request.output)[0], request.output.parent, hashes=True) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tokenizer_marked_invalid(tmp_path: Path, tokenizer_folder: Path, workers: int) -> None:
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "manifest.json"
    status = Status(state="invalid", reason="wrong corpus", date="2026-01-01")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in ("one", "two three")])
    request = PreprocessRequest([source], tmp_path / "out" / "data", tmp_path / "tokenizer", workers=workers)
    with pytest.raises(TrainyardError, match=r"wrong corpus.*--allow-invalid"):
        preprocess(request)
    assert not (tmp_path / "out").exists()
    [made] = preprocess(replace(request, allow_invalid=True)).datasets
    assert read_manifest(manifest_path(made.prefix)).parents == [read_manifest(path).id]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"json_keys": ("body",)}, "line 1: no key 'body', only text"),
        ({"json_keys": ("text", "text")}, "each once"),
        ({"json_keys": ("a/b",)}, "without slashes"),
        ({"workers": 0}, "at least one process"),
    ],
)
def test_bad_requests_write_nothing(
    tmp_path: Path, request_for: Request, settings: dict[str, Any], message: str
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(TrainyardError, match=re.escape(message)):
        preprocess(request_for([source], **settings))
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("texts", [[], ["", ""]])
@pytest.mark.parametrize("append_eod", [False, True])
def test_sources_without_text(tmp_path: Path, request_for: Request, texts: list[str], append_eod: bool) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    source.write_text(source.read_text() + "\n")
    with pytest.raises(TrainyardError, match=rf"no text under 'text': {len(texts)} documents"):
        preprocess(request_for([source], append_eod=append_eod))
    assert not list(tmp_path.glob("out/*"))


def test_a_tokenizer_without_an_end_of_document(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    (tmp_path / "bare").mkdir()
    Tokenizer(models.BPE({"a": 0, "b": 1}, [])).save(str(tmp_path / "bare" / "tokenizer.json"))
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "ab"}])
    with pytest.raises(TrainyardError, match="no end-of-document token to append"):
        preprocess(PreprocessRequest([source], tmp_path / "data", tmp_path / "bare", append_eod=True))
    preprocess(PreprocessRequest([source], tmp_path / "data", tmp_path / "bare"))
    assert IndexedDataset(tmp_path / "data").tokens.tolist() == [0, 1]


def test_a_vocabulary_of_65500_takes_four_bytes(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    (tmp_path / "large").mkdir()
    vocabulary = {"a": 0, "b": 65499}
    Tokenizer(models.BPE(vocabulary, [])).save(str(tmp_path / "large" / "tokenizer.json"))
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "ab"}])
    preprocess(PreprocessRequest([source], tmp_path / "data", tmp_path / "large"))
    dataset = IndexedDataset(tmp_path / "data")
    assert (dataset.dtype, dataset.tokens.tolist()) == (np.int32, [0, 65499])


def test_what_is_left_out_is_counted_in_the_manifest(tmp_path: Path, request_for: Request) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [{"text": "x"}])
    write_jsonl(folder / "b.json", [{"text": "y"}])
    for number in range(120):
        (folder / f"note-{number:03d}.md").touch()
    request = request_for([folder])
    summary = preprocess(request)
    facts = read_dataset_manifest(request.output)[1]
    assert (facts.documents, facts.number_not_read, len(facts.not_read)) == (2, 120, 100)
    assert facts.not_read[0] == "corpus/note-000.md"
    assert [each.name for each in summary.not_read[:1]] == ["corpus/note-000.md"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("parse_special", [False, True])
def test_text_that_spells_the_end_of_a_document(
    tmp_path: Path, request_for: Request, workers: int, parse_special: bool
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "hello <|endoftext|> world"}])
    request = request_for([source], append_eod=True, workers=workers, parse_special=parse_special)
    preprocess(request)
    document = IndexedDataset(request.output)[0].tolist()
    assert document.count(0) == 1 + parse_special and document[-1] == 0
    manifest, facts = read_dataset_manifest(request.output)
    assert facts.settings is not None and facts.settings.parse_special == parse_special
    assert ("--parse-special" in (manifest.by.command or "")) == parse_special


def test_names_that_are_not_utf8_can_stand_in_manifests(tmp_path: Path, tokenizer_folder: Path) -> None:
    """As archives of other systems hold them, in Latin-1."""
    folder, bpe = tmp_path / os.fsdecode(b"r\xe9cits"), tmp_path / os.fsdecode(b"b\xfe")
    folder.mkdir()
    write_jsonl(folder / os.fsdecode(b"\xe9t\xe9.jsonl"), [{"text": "one"}])
    (folder / os.fsdecode(b"\xe0.md")).touch()
    shutil.copytree(tokenizer_folder, bpe)
    preprocess(PreprocessRequest([folder], tmp_path / "data", bpe))
    _, facts = read_dataset_manifest(tmp_path / "data")
    assert [each.name for each in facts.sources] == [r"r\xe9cits/\xe9t\xe9.jsonl"]
    assert facts.not_read == [r"r\xe9cits/\xe0.md"]
    assert facts.tokenizer.name == r"b\xfe"
    train_bpe([folder], tmp_path / "own", 257)
    assert read_manifest(tmp_path / "own" / "manifest.json").facts["not_read"] == facts.not_read


@pytest.mark.parametrize("name", [os.fsdecode(b"d\xff"), "d\n", "d\\e", "d" * 253])
def test_a_name_that_a_manifest_cannot_hold_is_refused_at_once(
    tmp_path: Path, tokenizer_folder: Path, name: str
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    with pytest.raises(TrainyardError, match=r"^a dataset cannot be called 'd"):
        preprocess(PreprocessRequest([source], tmp_path / "out" / name, tokenizer_folder))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
@pytest.mark.parametrize("keys", [["text"], ["text", "other"]])
def test_a_folder_is_no_prefix(tmp_path: Path, tokenizer_folder: Path, name: str, keys: list[str]) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [dict.fromkeys(keys, "one")])
    with pytest.raises(TrainyardError, match=r"is a folder; a dataset's prefix is the path of its \.bin without"):
        preprocess(PreprocessRequest([source], Path(name), tokenizer_folder, json_keys=keys))
    with pytest.raises(TrainyardError, match=r"is a folder"):
        split_dataset(Path(name), tmp_path / "shard", Cut("shards", 2))
    with pytest.raises(TrainyardError, match=r"is a folder"):
        merge_datasets([tmp_path / "a", tmp_path / "b"], Path(name))
