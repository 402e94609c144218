"""Datasets of records with answers, and of as many tokens as were asked for."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_tools.datasets.adoption import adopt_dataset
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.verification import verify_dataset
from data_tools.records.record import RecordForm
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import build_manifest, read_manifest, write_manifest
from megatron_patches.errors import TrainyardError

Request = Callable[..., PreprocessRequest]
PAIRS = RecordForm("pairs", ("q", "a"), None, " ")
CHAT = RecordForm("chat", ("messages",), "plain")
OWN = RecordForm("chat", ("messages",), "tokenizer")
TEMPLATE = "{% for m in messages %}{{ m.role ~ ' ' ~ m.content ~ eos_token ~ '\n' }}{% endfor %}"
SUFFIXES = (".bin", ".idx")


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"q": f"the dog {number}" * (number % 4), "a": f"over {number}"} for number in range(count)]


def chats(count: int) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "the sea"}]
    return [
        {"messages": [{"role": "system", "content": str(number)}, *turns * (1 + number % 3)]} for number in range(count)
    ]


@pytest.fixture
def request_for(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request whose output is tmp_path/out/data, of chunks of three documents."""
    monkeypatch.setattr("data_tools.reading.files.lines_part.BLOCK_BYTES", 128)

    def make(inputs: Sequence[Path], **settings: Any) -> PreprocessRequest:
        return PreprocessRequest(
            inputs, tmp_path / "out" / "data", settings.pop("tokenizer", tokenizer_folder), **settings
        )

    return make


@pytest.fixture
def own_template(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """The tokenizer with a template of its own, which refuses a chat that begins with 86."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    strict = "{% if messages[0].content == '86' %}{{ raise_exception('not 86') }}{% endif %}" + TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "chat_template": strict}))
    return folder


def facts_of(request: PreprocessRequest) -> DatasetFacts:
    return read_dataset_manifest(request.output)[1]


def test_record_k_is_document_k(tmp_path: Path, request_for: Request) -> None:
    records = pairs(10)
    request = request_for([write_jsonl(tmp_path / "a.jsonl", records)], records=PAIRS)
    preprocess(request)
    dataset, tokenizer = IndexedDataset(request.output), load_tokenizer(request.tokenizer)
    assert dataset.number_of_documents == 10
    for number, record in enumerate(records):
        start, middle, end = dataset.document_boundaries(number).tolist()
        assert dataset.tokens[start:middle].tolist() == tokenizer.encode(record["q"])
        assert dataset.tokens[middle:end].tolist() == [*tokenizer.encode(f" {record['a']}"), 0]
        assert dataset.answers(start, end - start).tolist() == [False] * (middle - start) + [True] * (end - middle)


def test_what_a_manifest_says_of_pairs(tmp_path: Path, request_for: Request) -> None:
    request = request_for([write_jsonl(tmp_path / "a.jsonl", pairs(10))], records=PAIRS)
    [made] = preprocess(request).datasets
    facts, dataset = facts_of(request), IndexedDataset(request.output)
    assert (facts.documents, facts.sequences, facts.empty_documents) == (10, 20, 0)
    assert facts.answers is not None
    assert (facts.answers.answers, facts.answers.tokens) == (10, int(dataset.answers(0, facts.tokens).sum()))
    assert facts.settings is not None
    settings = facts.settings.model_dump()
    assert len(settings.pop("template_sha256")) == 64
    assert settings == {
        "json_key": "q,a", "json_keys": ["q", "a"], "append_eod": True, "parse_special": False, "records": "pairs",
        "separator": " ",
    }  # fmt: skip
    assert read_manifest(manifest_path(made.prefix)).by.command == (
        "tools/preprocess a.jsonl --output data --tokenizer bpe --pairs q,a --pair-separator ' '"
    )
    assert verify_dataset(request.output) == facts


def test_what_a_manifest_says_of_templates(tmp_path: Path, request_for: Request, own_template: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", chats(7))
    found = []
    for form, template in ((CHAT, "x"), (OWN, TEMPLATE), (OWN, TEMPLATE + "{# #}")):
        (own_template / "chat_template.jinja").write_text(template)
        request = request_for([source], records=form, tokenizer=own_template, overwrite=True)
        preprocess(request)
        settings = facts_of(request).settings
        assert settings is not None and settings.records == "chat" and settings.separator is None
        found.append((settings.template, settings.template_sha256, settings.append_eod))
        verify_dataset(request.output)
    assert [each[0] for each in found] == ["plain", "tokenizer", "tokenizer"]
    assert len({each[1] for each in found}) == 3
    assert [each[2] for each in found] == [True, False, False]


@pytest.mark.parametrize(("form", "make"), [(PAIRS, pairs), (OWN, chats)])
def test_the_result_does_not_depend_on_the_workers(
    tmp_path: Path,
    request_for: Request,
    own_template: Path,
    form: RecordForm,
    make: Callable[[int], list[dict[str, Any]]],
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make(40))
    results = []
    for workers in (1, 2):
        request = request_for(
            [source], records=form, tokenizer=own_template, workers=workers, overwrite=True, tokens=150
        )
        preprocess(request)
        files = [request.output.with_name(f"data{suffix}").read_bytes() for suffix in SUFFIXES]
        results.append((*files, read_dataset_manifest(request.output)[0].id))
    assert results[0] == results[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_record_in_the_middle_leaves_nothing(tmp_path: Path, request_for: Request, workers: int) -> None:
    records = chats(8)
    records[6]["messages"].append({"role": "narrator", "content": "x"})
    source = write_jsonl(tmp_path / "a.jsonl", records)
    with pytest.raises(TrainyardError, match=r"a\.jsonl, line 7, message 4: unknown role 'narrator'"):
        preprocess(request_for([source], records=CHAT, workers=workers))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_record_that_a_template_refuses_leaves_nothing(
    tmp_path: Path, request_for: Request, own_template: Path, workers: int
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", chats(88))
    with pytest.raises(TrainyardError, match=r"a\.jsonl, line 87: the chat template of .*not 86"):
        preprocess(request_for([source], records=OWN, tokenizer=own_template, workers=workers))
    assert not list((tmp_path / "out").iterdir())


def test_a_source_without_records(tmp_path: Path, request_for: Request) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(TrainyardError, match=r"hold no text under 'q,a': 0 documents; check the inputs and --pairs"):
        preprocess(request_for([tmp_path / "a.jsonl"], records=PAIRS))


def test_answers_that_are_not_those_of_the_manifest(tmp_path: Path, request_for: Request) -> None:
    request = request_for([write_jsonl(tmp_path / "a.jsonl", pairs(3))], records=PAIRS)
    preprocess(request)
    path = manifest_path(request.output)
    manifest = read_manifest(path)
    facts = {**manifest.facts, "answers": {"answers": 4, "tokens": 1}}
    write_manifest(path, build_manifest("dataset", manifest.files, facts, manifest.parents, "x"))
    with pytest.raises(TrainyardError, match=r"answers: 3 found, the manifest says 4; tokens of answers: \d+ found"):
        verify_dataset(request.output)


def test_documents_of_several_sequences_are_adopted(tmp_path: Path, request_for: Request) -> None:
    request = request_for([write_jsonl(tmp_path / "a.jsonl", chats(9))], records=CHAT)
    preprocess(request)
    made = facts_of(request)
    manifest_path(request.output).unlink()
    adopt_dataset(request.output, request.tokenizer)
    facts = facts_of(request)
    assert (facts.documents, facts.sequences, facts.tokens) == (9, made.sequences, made.tokens)
    assert made.sequences == 2 * (3 * 1 + 3 * 2 + 3 * 3)
    assert facts.answers is None  # what its sequences are is not known
    assert verify_dataset(request.output) == facts


def test_reading_stops_with_the_document_that_reaches_the_tokens(tmp_path: Path, request_for: Request) -> None:
    texts = [f"text of number {number}" for number in range(20)]
    sources = [
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text, "n": "x"} for text in texts[first : first + 8]])
        for name, first in (("a", 0), ("b", 8), ("c", 16))
    ]
    tokenizer = load_tokenizer(request_for([]).tokenizer)
    lengths = [len(tokenizer.encode(text)) + 1 for text in texts]
    for tokens, documents in ((1, 1), (sum(lengths[:8]), 8), (sum(lengths[:8]) + 1, 9), (sum(lengths[:11]) - 1, 11)):
        request = request_for(sources, json_keys=("text", "n"), append_eod=True, tokens=tokens, overwrite=True)
        summary = preprocess(request)
        assert [each.facts.documents for each in summary.datasets] == [documents] * 2
        facts = summary.datasets[0].facts
        assert (facts.tokens, facts.settings and facts.settings.tokens_asked) == (sum(lengths[:documents]), tokens)
        read = [("a.jsonl", min(8, documents)), ("b.jsonl", documents - 8)][: 1 + (documents > 8)]
        assert [(each.name, each.documents) for each in facts.sources] == read
        dataset = IndexedDataset(summary.datasets[0].prefix)
        assert [tokenizer.decode(each.tolist()[:-1]) for each in dataset] == texts[:documents]


def test_sources_with_fewer_tokens_than_asked_for(tmp_path: Path, request_for: Request) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}] * 7)
    have = 7 * len(load_tokenizer(request_for([]).tokenizer).encode("one"))
    preprocess(request_for([source], tokens=have))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    told = rf"sources have {have} tokens in 7 documents, --target-tokens \(--tokens\) asks for {have + 1:,}; give more"
    with pytest.raises(TrainyardError, match=told):
        preprocess(request_for([source], tokens=have + 1, overwrite=True))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(TrainyardError, match="0 tokens are asked for"):
        preprocess(request_for([source], tokens=0, overwrite=True))


WORDS = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2}, "unk_token": "a"},
}  # fmt: skip


def test_ids_of_datasets_of_texts_are_what_they_were(tmp_path: Path) -> None:
    """Made before there were records: a fact that a text does not have must not stand in its manifest.

    One text under q is empty, and has no end-of-document token since it is written as Megatron-LM writes it.
    """
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text(json.dumps(WORDS))
    source = write_jsonl(tmp_path / "a.jsonl", [{"q": "a b", "text": "b"}, {"q": "", "text": "a"}])
    [one] = preprocess(PreprocessRequest([source], tmp_path / "one", tmp_path / "words")).datasets
    assert one.id == "b76a1db585d107686492fe5f9df2a1a79383f476aad6dbe81cc476a0a23cb6c4"
    request = PreprocessRequest(
        [source], tmp_path / "two", tmp_path / "words", ("q", "text"), append_eod=True, parse_special=True
    )
    assert [each.id for each in preprocess(request).datasets] == [
        "6e44f754d801b119cccfefe71841fea7bf2e717adfce7bee2fc19facbae63d95",
        "3a5f6798e9979849ca365a8acdbff28e3afc96c9409c3662815855043453b637",
    ]
