"""Texts and tokenizers that are measured with."""

import json
from itertools import islice
from pathlib import Path

import pytest

from data_tools.benchmark import texts
from data_tools.benchmark.drain import drain
from data_tools.benchmark.small_tokenizers import Kind, train_small
from data_tools.benchmark.texts import texts_of, write_beginning, write_installed_text, write_random_words
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Missing


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    for name, content in {
        "a/code.py": b"x = '\xc3\xa4'\n" * 50, "a/notes.md": b"# Notes\n" * 60, "b/latin.txt": b"\xe4\n" * 9,
        "b/empty.py": b" \n", "b/table.csv": b"1,2\n" * 99, "b/long.txt": b"x" * (texts.LARGEST_FILE + 1),
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))
    return folder


def test_the_text_of_packages_starts_again_where_it_ends(packages: Path, tmp_path: Path) -> None:
    assert write_installed_text(tmp_path / "text", 2500) == 5
    assert 2500 <= (tmp_path / "text").stat().st_size < 3200
    found = list(texts_of(tmp_path / "text"))
    assert {*found} == {"x = 'ä'\n" * 50, "# Notes\n" * 60}
    assert found[:2] * 2 == found[:4]
    write_installed_text(tmp_path / "again", 2500)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "text").read_bytes()
    for name in ("a/code.py", "a/notes.md"):
        (packages / name).unlink()
    with pytest.raises(Missing, match="hold no text"):
        write_installed_text(tmp_path / "none", 10)


def test_random_words_hardly_ever_come_twice(tmp_path: Path) -> None:
    assert write_random_words(tmp_path / "words", 300_000) == 38
    words = [word for text in texts_of(tmp_path / "words") for word in text.split() if len(word) > 5]
    assert len(words) > 10_000
    assert len({*words}) > 0.999 * len(words)
    write_random_words(tmp_path / "again", 300_000)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "words").read_bytes()


def test_a_beginning_ends_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"one\ntwo\nthree\n")
    for size, found in ((4, b"one\n"), (5, b"one\ntwo\n"), (99, b"one\ntwo\nthree\n")):
        write_beginning(tmp_path / "beginning", tmp_path / "text", size)
        assert (tmp_path / "beginning").read_bytes() == found


@pytest.mark.parametrize("kind", list(Kind))
def test_tokenizers_of_all_kinds(kind: Kind, tmp_path: Path) -> None:
    sample = tmp_path / "sample.jsonl"
    sources = [file.read_text() for file in islice(sorted(Path(texts.__file__).parent.glob("*.py")), 6)]
    sample.write_text("".join(json.dumps({"text": text}) + "\n" for text in sources))
    train_small(kind, sample, tmp_path / "made", 500)
    tokenizer = load_tokenizer(tmp_path / "made")
    assert tokenizer.end_of_document is not None
    assert 300 < tokenizer.vocab_size <= 500
    ids = tokenizer.encode("def text(): <|endoftext|> </s>")
    assert tokenizer.end_of_document not in ids and len(ids) > 5


@pytest.mark.slow
def test_an_epoch_straight_from_text_has_all_samples(tmp_path: Path) -> None:
    sample = tmp_path / "sample.jsonl"
    documents = [{"text": "some words to learn from " * 200 + str(number)} for number in range(30)]
    sample.write_text("".join(json.dumps(each) + "\n" for each in documents))
    train_small(Kind.BPE, sample, tmp_path / "made", 270)
    tokenizer = load_tokenizer(tmp_path / "made")
    tokens = sum(len(tokenizer.encode(each["text"])) + 1 for each in documents)
    assert drain(sample, tmp_path / "made", 64, 1) == (tokens - 1) // 64 > 100
    sample.write_text(json.dumps({"text": "short"}) + "\n")
    assert drain(sample, tmp_path / "made", 64, 1) == 0
