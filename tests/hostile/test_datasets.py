"""Datasets, tokenizers and sources of text."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from data_tools.datasets.lengths import read_histogram
from data_tools.datasets.regrouping.merge import merge_datasets
from data_tools.datasets.regrouping.shards import Cut, split_dataset
from data_tools.datasets.scan import scan
from data_tools.datasets.verification import verify_dataset
from data_tools.reading.block import BadEntry
from data_tools.reading.entries import read_documents
from data_tools.reading.files.parts import file_part
from data_tools.reading.files.sources import parts_of
from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import Message, Record, RecordForm
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError
from tests.data_tools.datasets.hand_written import state_manifest
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_bytes, odd_entries, odd_json, odd_text
from tools.commands.dataset.decoded import answer_marks

NewPlace = Callable[[], Place]
TOKENS = [[1, 2, 3], [], [4], [5, 6, 7, 8]]


def _write(prefix: Path) -> tuple[bytes, bytes]:
    with IndexedDatasetWriter(prefix, np.dtype("<u2")) as writer:
        for document in TOKENS:
            writer.add_document(document)
    return prefix.with_name(prefix.name + ".idx").read_bytes(), prefix.with_name(prefix.name + ".bin").read_bytes()


@cases(400)
@given(data=st.data())
def test_an_index(new_place: NewPlace, data: st.DataObject) -> None:
    prefix = new_place().inside / "data"
    index, tokens = _write(prefix)
    prefix.with_name("data.idx").write_bytes(data.draw(odd_bytes(index)))

    def read() -> list[list[int]]:
        dataset = IndexedDataset(prefix)
        dataset.answers(0, len(dataset.tokens))
        scan(dataset)
        dataset.count_answers()
        return [each.tolist() for each in dataset]

    found = attempt(read)
    if isinstance(found, TrainyardError):
        assert "data.idx" in str(found) or "data.bin" in str(found)
    else:
        assert sum(map(len, found)) <= len(tokens)


@cases(40)
@given(data=st.data())
def test_an_index_whose_own_manifest_vouches_for_it(new_place: NewPlace, data: st.DataObject) -> None:
    """Its hashes fit, so that only what reads it stands between it and what is made from it."""
    place = new_place()
    prefix = place.inside / "data"
    index, _ = _write(prefix)
    prefix.with_name("data.idx").write_bytes(data.draw(odd_bytes(index)))
    documents = [[each] for each in TOKENS]
    state_manifest(prefix, documents, 8, "t", None)
    cut = Cut("documents", data.draw(st.integers(1, 4)))
    for made in (
        attempt(lambda: merge_datasets([prefix], place.inside / "merged")),
        attempt(lambda: split_dataset(prefix, place.inside / "part", cut)),
        attempt(lambda: read_histogram(prefix)),
        attempt(lambda: answer_marks(IndexedDataset(prefix), 1, 7)),
    ):
        if isinstance(made, TrainyardError):
            assert "data" in str(made)
    for made in place.inside.glob("*.idx"):
        if made.stem != "data":
            verify_dataset(made.with_suffix(""))
    place.check()


@cases(50)
@given(put=odd_entries(), name=st.sampled_from(("data.idx", "data.bin")))
def test_what_stands_where_a_file_of_a_dataset_is_expected(
    new_place: NewPlace, put: Callable[[Place, Path], None], name: str
) -> None:
    place = new_place()
    prefix = place.inside / "data"
    _write(prefix)
    put(place, place.inside / name)
    assert isinstance(attempt(lambda: IndexedDataset(prefix)), TrainyardError)
    place.check()


def _texts_in(path: Path) -> list[str]:
    return [texts[0] for texts in read_documents(file_part(path, path.name, ["text"]), ["text"])]


_LINES = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in ("one", "two\nlines", "", "drei 漢字"))


@cases(150)
@given(content=odd_text(_LINES), packed=st.booleans())
def test_lines_of_documents(new_place: NewPlace, content: bytes, packed: bool) -> None:
    path = new_place().inside / ("a.jsonl.gz" if packed else "a.jsonl")
    path.write_bytes(gzip.compress(content) if packed else content)
    found = attempt(lambda: _texts_in(path))
    if isinstance(found, TrainyardError):
        assert path.name in str(found) and "line" in str(found), found
    else:
        for text in found:
            text.encode()


_TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_CHAT = RecordForm("chat", ("messages",), "tokenizer")


@cases(150)
@given(content=odd_json({"messages": _TURNS}))
def test_chats(new_place: NewPlace, content: bytes) -> None:
    path = new_place().inside / "a.jsonl"
    path.write_bytes(content)

    def read() -> tuple[list[Record], list[BadEntry]]:
        read = [_CHAT.records_of(block) for part in _CHAT.parts_of([path]).parts for block in part.blocks()]
        return [each for records, _ in read for each in records], [each for _, bad in read for each in bad]

    found = attempt(read)
    if isinstance(found, TrainyardError):
        assert path.name in str(found), found
    else:
        records, bad = found
        assert all(path.name in each.reason and len(each.reason) < 10_000 for each in bad)
        answers = [each for record in records for each in record.messages if each.role == "assistant"]
        assert all(each.content.encode() for each in answers)


_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[' ~ m['content'] | trim ~ ']' }}{% else %}{{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% set x = namespace(a=range(3)) %}{{ x.a | length if false }}"
)


@cases(150)
@given(text=odd_text(_TEMPLATE))
def test_a_chat_template(new_place: NewPlace, text: bytes) -> None:
    folder = new_place().inside / "tokenizer"
    model, config = _tokenizer_files(folder)
    (folder / "tokenizer.json").write_bytes(model)
    (folder / "tokenizer_config.json").write_bytes(config)
    (folder / "chat_template.jinja").write_bytes(text)
    messages = (Message("user", "b<|endoftext|>"), Message("assistant", "a"))

    def encode() -> list[int]:
        tokenizer = load_tokenizer(folder)
        encoding = RecordEncoding.of(_CHAT, folder, False)
        [encoded] = encoding(tokenizer, [Record(messages, "a.jsonl, line 1", 0)])
        return encoded.lengths

    found = attempt(encode)
    if isinstance(found, TrainyardError):
        assert "chat" in str(found), found
    else:
        assert len(found) >= 2


@cases(60)
@given(data=st.data(), packed=st.sampled_from((".gz", ".zst")))
def test_packed_lines(new_place: NewPlace, data: st.DataObject, packed: str) -> None:
    import zstandard

    whole = gzip.compress(_LINES.encode()) if packed == ".gz" else zstandard.compress(_LINES.encode())
    path = new_place().inside / f"a.jsonl{packed}"
    path.write_bytes(data.draw(odd_bytes(whole)))
    found = attempt(lambda: _texts_in(path))
    if isinstance(found, TrainyardError):
        assert path.name in str(found)


@cases(60)
@given(put=odd_entries())
def test_what_stands_in_a_corpus(new_place: NewPlace, put: Callable[[Place, Path], None]) -> None:
    place = new_place()
    corpus = place.inside / "corpus"
    corpus.mkdir()
    (corpus / "good.jsonl").write_text(_LINES, encoding="utf-8")
    put(place, corpus / "odd.jsonl")
    (corpus / "round").symlink_to(".")

    def read() -> list[str]:
        return [found.name for found in parts_of([corpus]).parts]

    found = attempt(read)
    if not isinstance(found, TrainyardError):
        assert any(name.endswith("good.jsonl") for name in found)
        assert len(found) == len(set(found))
    place.check()


def _tokenizer_files(folder: Path) -> tuple[bytes, bytes]:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    folder.mkdir()
    library = Tokenizer(WordLevel({"<|endoftext|>": 0, "a": 1, "b": 2}, unk_token="a"))
    library.add_special_tokens(["<|endoftext|>"])
    library.add_tokens(["<A>"])
    config = {"eos_token": "<|endoftext|>", "model_max_length": 5, "trainyard_as_ids_alone": ["<A>"]}
    return library.to_str().encode(), json.dumps(config).encode()


@cases(200)
@given(data=st.data())
def test_a_tokenizer(new_place: NewPlace, data: st.DataObject) -> None:
    folder = new_place().inside / "tokenizer"
    model, config = _tokenizer_files(folder)
    if data.draw(st.booleans()):
        config = data.draw(st.one_of(odd_json(json.loads(config)), odd_bytes(config)))
    else:
        model = data.draw(st.one_of(odd_json(json.loads(model)), odd_bytes(model)))
    (folder / "tokenizer.json").write_bytes(model)
    (folder / "tokenizer_config.json").write_bytes(config)

    def read() -> int | None:
        tokenizer = load_tokenizer(folder)
        tokenizer.encode("a b <|endoftext|>")
        return tokenizer.end_of_document

    found = attempt(read)
    if isinstance(found, TrainyardError):
        assert "tokenizer" in str(found)
    else:
        assert found is None or found >= 0
