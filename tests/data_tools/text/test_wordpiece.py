"""WordPiece tokenizers: the same text gives the same one, and its ids are those of transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.text.special_tokens import special_tokens
from data_tools.text.tokenizers import load_tokenizer
from data_tools.text.wordpiece_training import SPECIAL, train_wordpiece
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.errors import TrainyardError
from tests.data_tools.conftest import TEXTS

VOCABULARY = 220
CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences, and source code with capitals, numbers and punctuation: many merges are tied."""
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    code = (CHECKOUT / "data_tools/text/tokenizers.py").read_text().split("\n\n")
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in [*TEXTS, *code, "É é 中文 x"]))
    return path


@pytest.fixture(scope="module")
def trained(text: Path) -> Path:
    train_wordpiece([text], text.parent / "trained", VOCABULARY, lowercase=True)
    return text.parent / "trained"


def test_another_process_trains_the_same_one(text: Path, trained: Path, tmp_path: Path) -> None:
    """The library's own trainer gives another vocabulary in each process."""
    program = (
        "import sys; from pathlib import Path; from data_tools.text.wordpiece_training import train_wordpiece; "
        f"train_wordpiece([Path(sys.argv[1])], Path(sys.argv[2]), {VOCABULARY}, lowercase=True)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "3", "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([sys.executable, "-c", program, text, tmp_path / "trained"], check=True, env=environment)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "trained" / name).read_bytes() == (trained / name).read_bytes()
    assert read_manifest(tmp_path / "trained/manifest.json").id == read_manifest(trained / "manifest.json").id


def test_what_it_is(trained: Path) -> None:
    tokenizer, special = load_tokenizer(trained), special_tokens(trained)
    assert (tokenizer.vocab_size, tokenizer.end_of_document) == (VOCABULARY, None)
    assert (special.pad, special.cls, special.sep, special.mask) == (0, 2, 3, 4)
    assert special.special == frozenset(range(5)) and special.end_of_document is None
    pieces = [piece for _, piece in sorted(tokenizer.tokens().items())]
    assert tuple(pieces[:5]) == SPECIAL
    learned = [piece for piece in pieces[5:] if len(piece.removeprefix("##")) > 1]
    single = [piece for piece in pieces[5:] if len(piece.removeprefix("##")) == 1]
    assert pieces[5:] == [*single, *learned] and len(learned) > 50
    assert single == sorted(single, key=lambda each: (len(each), each))
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2, "pieces must have been learned"


def test_text_that_spells_a_special_token_stays_text(trained: Path) -> None:
    tokenizer = load_tokenizer(trained)
    for spelled in SPECIAL:
        ids = tokenizer.encode(f"dog {spelled} dog")
        dog = tokenizer.encode("dog")
        assert ids[: len(dog)] == ids[-len(dog) :] == dog and not {0, 2, 3, 4} & set(ids)


def test_ids_are_those_of_transformers(trained: Path, tmp_path: Path) -> None:
    """`parse_special`, as transformers reads special tokens in a text."""
    from transformers import AutoTokenizer, BertTokenizerFast

    tokenizer, parsing = load_tokenizer(trained), load_tokenizer(trained, parse_special=True)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(piece for _, piece in sorted(tokenizer.tokens().items())))
    # what it calls the file differs between versions 4 and 5
    names = ("vocab", "vocab_file")
    found = [BertTokenizerFast(**{name: str(vocabulary)}, do_lower_case=True) for name in names]
    bert = next(each for each in found if len(each) == VOCABULARY)
    theirs = AutoTokenizer.from_pretrained(trained)
    assert theirs.mask_token_id == bert.mask_token_id == 4
    for text in (*TEXTS, *HARD_TEXTS, (CHECKOUT / "ARCHITECTURE.md").read_text()):
        ids = parsing.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ids == bert.encode(text, add_special_tokens=False)
        if not any(token in text for token in SPECIAL):
            assert tokenizer.encode(text) == ids
    whole = theirs.encode(TEXTS[0])
    assert whole == bert.encode(TEXTS[0]) == [2, *tokenizer.encode(TEXTS[0]), 3], "asked for, a text is wrapped"


def test_capitals_stay_unless_told(text: Path, trained: Path, tmp_path: Path) -> None:
    train_wordpiece([text], tmp_path / "cased", VOCABULARY)
    cased, lowered = load_tokenizer(tmp_path / "cased"), load_tokenizer(trained)
    assert cased.decode(cased.encode("The dog")) == "The dog"
    assert lowered.decode(lowered.encode("The dog É")) == "the dog e"


def test_the_end_of_a_document_is_asked_for(text: Path, tmp_path: Path) -> None:
    manifest = train_wordpiece([text], tmp_path / "ending", VOCABULARY, sep_ends_documents=True)
    assert load_tokenizer(tmp_path / "ending").end_of_document == manifest.facts["end_of_document"] == 3
    assert manifest.by.command.endswith("--kind wordpiece --sep-ends-documents")


def test_rare_characters_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Among equally frequent characters the lowest code points stay."""
    monkeypatch.setattr("data_tools.text.wordpiece_training.CHARACTERS", 3)
    (tmp_path / "text.txt").write_text("abab cd cd ef ab aab")
    train_wordpiece([tmp_path / "text.txt"], tmp_path / "small", 11)
    pieces = [piece for _, piece in sorted(load_tokenizer(tmp_path / "small").tokens().items())]
    assert pieces[5:10] == ["a", "b", "c", "##a", "##b"]


@pytest.mark.parametrize(
    ("size", "message"),
    [(20, r"5 special tokens and the text's characters.* choose --vocab-size \d+"), (9000, "give more text")],
)
def test_a_size_that_cannot_be(text: Path, tmp_path: Path, size: int, message: str) -> None:
    with pytest.raises(TrainyardError, match=message):
        train_wordpiece([text], tmp_path / "none", size)
    assert not (tmp_path / "none").exists()
