import json
import shutil
from pathlib import Path

import pytest

from data_tools.text.tokenizer_training import train_bpe
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer, tokenizer_id
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from megatron_patches.errors import TrainyardError
from tests.data_tools.conftest import TEXTS

SAMPLES = ["", "The dog", "näïve \U0001f600\n\n  tab\t", *TEXTS]


@pytest.fixture
def copy(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A tokenizer that a test may damage."""
    return Path(shutil.copytree(tokenizer_folder, tmp_path / "copy"))


def without_manifest(folder: Path) -> Path:
    (folder / "manifest.json").unlink()
    return folder


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_bpe_gives_back_every_text(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    assert (tokenizer.vocab_size, tokenizer.end_of_document, tokenizer.name) == (300, 0, "bpe")
    for text in SAMPLES:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch(SAMPLES) == [tokenizer.encode(text) for text in SAMPLES]
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 1.5, "merges must have been learned"


def test_bpe_agrees_with_transformers(tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tokenizer_folder)
    ours = load_tokenizer(tokenizer_folder)
    assert theirs.eos_token_id == ours.end_of_document
    parsing = load_tokenizer(tokenizer_folder, parse_special=True)
    for text in [*SAMPLES, "a<|endoftext|>b"]:
        assert parsing.encode(text) == theirs.encode(text, add_special_tokens=False)
    for text in SAMPLES:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)


def test_no_special_token_no_truncation_no_padding(copy: Path) -> None:
    """A tokenizer.json can ask for all three; documents would begin twice, end early, or be filled."""
    from tokenizers import Tokenizer, processors

    library = Tokenizer.from_file(str(copy / "tokenizer.json"))
    expected = [library.encode(text).ids for text in SAMPLES]
    library.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    library.enable_truncation(4)
    library.enable_padding(length=8)
    library.save(str(without_manifest(copy) / "tokenizer.json"))
    assert len(Tokenizer.from_file(str(copy / "tokenizer.json")).encode("The dog runs").ids) == 8
    tokenizer = load_tokenizer(copy)
    assert tokenizer.encode_batch(SAMPLES) == expected
    assert [tokenizer.encode(text) for text in SAMPLES] == expected


@pytest.mark.parametrize(
    ("eos_token", "expected"),
    [("A", "A"), ({"content": "B", "lstrip": False}, "B"), (None, "<|endoftext|>")],
)
def test_end_of_document_is_the_configured_one(copy: Path, eos_token: object, expected: str) -> None:
    edit_json(without_manifest(copy) / "tokenizer_config.json", eos_token=eos_token)
    tokenizer = load_tokenizer(copy)
    assert tokenizer.end_of_document is not None
    assert tokenizer.decode([tokenizer.end_of_document]) == expected


def test_end_of_document_without_a_config(copy: Path) -> None:
    (without_manifest(copy) / "tokenizer_config.json").unlink()
    assert load_tokenizer(copy).end_of_document == 0


def test_sentencepiece(sentencepiece_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(sentencepiece_model)
    assert (tokenizer.vocab_size, tokenizer.end_of_document, tokenizer.name) == (39, 2, "small.model")
    assert tokenizer.decode(tokenizer.encode("The dog runs")) == "The dog runs"
    assert tokenizer.encode_batch(SAMPLES) == [tokenizer.encode(text) for text in SAMPLES]
    assert not {1, 2} & set(tokenizer.encode("The dog runs")), "no beginning or end of a sentence is added"
    shutil.copy(sentencepiece_model, tmp_path)
    assert load_tokenizer(tmp_path).id == tokenizer.id


def test_the_id_is_the_manifest_s(tokenizer_folder: Path) -> None:
    manifest = read_manifest(tokenizer_folder / "manifest.json")
    assert load_tokenizer(tokenizer_folder).id == manifest.id == tokenizer_id(find_tokenizer(tokenizer_folder))
    assert manifest.kind == "tokenizer"
    assert manifest.facts["vocab_size"] == 300
    assert str(tokenizer_folder.parent) not in (tokenizer_folder / "manifest.json").read_text()


def test_without_a_manifest_the_id_is_the_files(copy: Path, tmp_path: Path) -> None:
    moved = without_manifest(copy).rename(tmp_path / "elsewhere")
    first = load_tokenizer(moved).id
    (moved / "notes.txt").touch()
    assert load_tokenizer(moved).id == first
    edit_json(moved / "tokenizer_config.json", eos_token="A")
    assert load_tokenizer(moved).id != first


def test_another_artefact_s_manifest_beside_a_model_is_not_its_own(sentencepiece_model: Path, copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    shutil.copy(sentencepiece_model, copy)
    assert load_tokenizer(copy / "small.model").id == load_tokenizer(sentencepiece_model).id


def test_files_changed_after_the_manifest(copy: Path) -> None:
    edit_json(copy / "tokenizer_config.json", eos_token="A")
    with pytest.raises(TrainyardError, match=r"tokenizer_config.json has .* its manifest says"):
        load_tokenizer(copy)


def test_an_invalid_tokenizer(copy: Path) -> None:
    manifest = read_manifest(copy / "manifest.json")
    status = Status(state="invalid", reason="wrong corpus", date="2026-01-01")
    write_manifest(copy / "manifest.json", manifest.model_copy(update={"status": status}))
    with pytest.raises(TrainyardError, match="wrong corpus"):
        load_tokenizer(copy)


def test_unusable_tokenizers(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"neither a folder nor a .model file.*tools/tokenizer train"):
        load_tokenizer(tmp_path / "none")
    edit_json(without_manifest(copy) / "tokenizer_config.json", eos_token="<none>")
    with pytest.raises(TrainyardError, match="names eos_token '<none>'"):
        load_tokenizer(copy)
    (copy / "tokenizer_config.json").write_text("{")
    with pytest.raises(TrainyardError, match=r"tokenizer_config.json is not JSON"):
        load_tokenizer(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(TrainyardError, match=r"tokenizer.json is not a tokenizer"):
        load_tokenizer(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(TrainyardError, match=r"no tokenizer.json and 0 .model files"):
        load_tokenizer(copy)
    (copy / "bad.model").write_bytes(b"not a model")
    with pytest.raises(TrainyardError, match="not a SentencePiece model"):
        load_tokenizer(copy)


def test_training_twice_gives_the_same_tokenizer(tokenizer_folder: Path, tmp_path: Path) -> None:
    source = tokenizer_folder.parent / "text.jsonl"
    manifest = train_bpe([source], tmp_path / "again", 300)
    assert manifest.id == load_tokenizer(tokenizer_folder).id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


@pytest.mark.parametrize(
    ("vocab_size", "output", "message"),
    [
        (256, "new", "--vocab-size 257 or more"),
        (5000, "new", r"yields only \d+ tokens, 5000 were asked for"),
        (300, ".", "exists already"),
    ],
)
def test_training_that_cannot_be(
    tokenizer_folder: Path, tmp_path: Path, vocab_size: int, output: str, message: str
) -> None:
    with pytest.raises(TrainyardError, match=message):
        train_bpe([tokenizer_folder.parent / "text.jsonl"], tmp_path / output, vocab_size)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_leaves_nothing(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("data_tools.text.tokenizer_folder.write_manifest", fail)
    with pytest.raises(OSError, match="no space"):
        train_bpe([tokenizer_folder.parent / "text.jsonl"], tmp_path / "new", 300)
    assert list(tmp_path.iterdir()) == []
