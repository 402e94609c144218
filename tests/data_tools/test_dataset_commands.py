"""`tools/dataset merge`, `split`, `lengths` and `text`, as a user types them."""

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.lengths import LengthHistogram
from data_tools.datasets.regrouping import stretches
from data_tools.text.tokenizers import load_tokenizer
from tests.command_line import Call, verb
from tests.data_tools.conftest import TEXTS
from tests.data_tools.datasets.hand_written import (
    contents,
    quick_folder,
    some_documents,
    with_manifest,
    write_sequences,
)
from tools.commands.dataset import command_line
from tools.commands.dataset.decoded import answer_marks
from tools.commands.dataset.length_views import COLUMNS, plot


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return verb(command_line, monkeypatch, capsys)


def test_split_and_merged_again(tmp_path: Path, text_dataset: Path, dataset: Call) -> None:
    done = dataset("split", text_dataset, tmp_path / "part", "--shards", "3")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["shard", "documents", "tokens", "id"]
    assert [row[0] for row in rows[1:]] == [f"{tmp_path}/part-{number:05}" for number in range(3)]
    assert sum(int(row[1]) for row in rows[1:]) == len(TEXTS)
    done = dataset("merge", tmp_path / "again", *sorted(tmp_path.glob("part-*.idx")))
    assert (
        done.stdout.startswith(f"{tmp_path}/again: 20 documents, ") and "of uint16 from 3 datasets, id " in done.stdout
    )
    assert contents(tmp_path / "again") == contents(text_dataset)
    assert "end-of-document appended" in dataset("info", tmp_path / "again").stdout


def test_numbers_as_people_write_them(tmp_path: Path, text_dataset: Path, dataset: Call) -> None:
    made = json.loads(dataset("split", text_dataset, tmp_path / "s", "--tokens", "1.2e2", "--json").stdout)
    assert len(made) > 2 and all(each["tokens"] < 180 for each in made)
    for number in ("0", "1.5", "x", "-3", "1e99", "nan", "9" * 5000):
        done = dataset("split", text_dataset, tmp_path / "t", f"--tokens={number}")
        assert done.returncode == 2
        assert "--tokens takes a whole number of 1 or more, such as 1000 or 100e6, not" in done.stderr
        assert len(done.stderr) < 200


def test_a_cut_is_asked_for_once(tmp_path: Path, text_dataset: Path, dataset: Call) -> None:
    for asked in ([], ["--tokens", "9", "--shards", "2"]):
        done = dataset("split", text_dataset, tmp_path / "s", *asked)
        assert (done.returncode, done.stdout) == (2, "")
        assert "give one of --tokens N, --documents N and --shards N" in done.stderr


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Call) -> None:
    """8 MB of tokens and 2.4 MB of index, in pieces of 64 KiB."""
    monkeypatch.setattr(stretches, "PIECE_BYTES", 1 << 16)
    prefix = with_manifest(tmp_path / "d", [[[7] * 20] * 2] * 100_000)
    dataset("split", prefix, tmp_path / "warm-up", "--shards", "2")
    tracemalloc.start()
    try:
        assert dataset("split", prefix, tmp_path / "s", "--shards", "1").returncode == 0
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
        tracemalloc.reset_peak()
        assert dataset("merge", tmp_path / "m", tmp_path / "s-00000").returncode == 0
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_lengths_for_people_and_programs(tmp_path: Path, dataset: Call) -> None:
    prefix = write_sequences(tmp_path / "d", [[], [[1]], [[2] * 30, [3] * 70], *[[[4] * 900]] * 3])
    told = dataset("lengths", prefix, "--longer-than", "99, 899,900").stdout
    assert "quantiles  min 0, 1% 0, 10% 0, 50% 100, 90% 900, 99% 900, max 900" in told
    assert max(map(len, told.splitlines())) <= COLUMNS + len(str(tmp_path))
    rows = [line.split() for line in told.splitlines()]
    assert ["99", "4", "66.67%", "2,800", "99.96%"] in rows
    assert ["899", "3", "50.00%", "2,700", "96.39%"] in rows
    assert ["900", "0", "0.00%", "0", "0.00%"] in rows
    shown = json.loads(dataset("lengths", prefix, "--longer-than", "99", "--json").stdout)
    assert (shown["documents"], shown["tokens"], shown["quantiles"]["50%"]) == (6, 2801, 100)
    assert shown["longer_than"] == [
        {"limit": 99, "documents": 4, "share_of_documents": 4 / 6, "tokens": 2800, "share_of_tokens": 2800 / 2801}
    ]
    assert [each["documents"] for each in shown["histogram"] if each["documents"]] == [1, 1, 1, 3]


@pytest.mark.parametrize("longest", [1, 1000, 2**31, 10**12])
@pytest.mark.parametrize("documents", [3, 10**11])
def test_a_plot_has_80_columns(longest: int, documents: int) -> None:
    histogram = LengthHistogram(np.array([0, 1, longest + 1]), np.array([documents, 3, documents]))
    lines = plot(histogram)
    assert {len(line) for line in lines} == {COLUMNS}
    bars = [line.count("#") for line in lines[1:]]
    assert bars[0] == bars[-1] == max(bars) >= 8 and bars[1] >= 1


def test_a_picture_is_a_whole_png(tmp_path: Path, text_dataset: Path, dataset: Call) -> None:
    picture = tmp_path / "l.png"
    done = dataset("lengths", text_dataset, "--picture", picture, "--longer-than", "10", "--json")
    assert (done.returncode, done.stderr) == (0, f"drawn: {picture}\n") and json.loads(done.stdout)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.read_bytes().endswith(b"IEND\xaeB`\x82")
    done = dataset("lengths", text_dataset, "--picture", tmp_path / "l.svg")
    assert (done.returncode, done.stdout) == (2, "") and "l.svg is no .png" in done.stderr


def test_documents_as_text(text_dataset: Path, tokenizer_folder: Path, dataset: Call) -> None:
    told = dataset("text", text_dataset, "--documents", "3:5", "--tokenizer", tokenizer_folder).stdout
    tokens = [int(IndexedDataset(text_dataset).document_lengths(each, each + 1)[0]) for each in (3, 4)]
    assert told.splitlines() == [
        f"3: document of {tokens[0]} tokens", f"  | {TEXTS[3].strip()}", "  | <|endoftext|>",
        f"4: document of {tokens[1]} tokens", f"  | {TEXTS[4].strip()}", "  | <|endoftext|>",
    ]  # fmt: skip
    short = dataset("text", text_dataset, "--documents", "3", "--tokens", "1", "--tokenizer", tokenizer_folder).stdout
    assert short.splitlines()[0] == f"3: document of {tokens[0]} tokens, the first 1"


def test_samples_are_the_windows_that_runs_read(text_dataset: Path, tokenizer_folder: Path, dataset: Call) -> None:
    arguments = ("--samples", "2:4", "--sequence-length", "7", "--tokenizer", tokenizer_folder)
    lines = dataset("text", text_dataset, *arguments, "--json").stdout.splitlines()
    stream = IndexedDataset(text_dataset).tokens.tolist()
    tokenizer = load_tokenizer(tokenizer_folder)
    assert [json.loads(line) for line in lines] == [
        {
            "number": number,
            "where": f"sample of the tokens {7 * number} to {7 * number + 7}",
            "tokens": stream[7 * number : 7 * number + 8],
            "answers": [],
            "text": tokenizer.decode(stream[7 * number : 7 * number + 8]),
        }
        for number in (2, 3)
    ]
    last = (len(stream) - 1) // 7
    done = dataset("text", text_dataset, "--samples", str(last), *arguments[2:])
    assert f"--samples {last}: FROM must lie below TO, and the dataset has from 0 to {last - 1}" in done.stderr


def test_answers_are_marked_and_foreign_text_passes_for_nothing(
    tmp_path: Path, tokenizer_folder: Path, dataset: Call
) -> None:
    encode = load_tokenizer(tokenizer_folder).encode
    question, answer = encode("Which?\n  > that\x1b]0;x\x07"), encode("The\nfox")
    prefix = write_sequences(tmp_path / "d", [[question, answer, question, []], [question]])
    told = dataset("text", prefix, "--documents", "0:2", "--tokenizer", tokenizer_folder).stdout.splitlines()
    asked = ["  | Which?", r"  |   > that\x1b]0;x\x07"]
    length = 2 * len(question) + len(answer)
    assert told[:7] == [f"0: document of {length} tokens in 4 sequences", *asked, "  > The", "  > fox", *asked]
    assert told[7:] == [f"1: document of {len(question)} tokens", *asked]
    shown = json.loads(dataset("text", prefix, "--documents", "0", "--tokenizer", tokenizer_folder, "--json").stdout)
    assert shown["answers"] == [[len(question), len(question) + len(answer)]]


@settings(max_examples=40)
@given(documents=some_documents(), data=st.data())
def test_marks_of_any_window(documents: list[list[list[int]]], data: st.DataObject) -> None:
    expected = [place % 2 == 1 for document in documents for place, each in enumerate(document) for _ in each]
    first = data.draw(st.integers(0, len(expected)))
    end = data.draw(st.integers(first, len(expected)))
    with quick_folder() as place:
        marks = answer_marks(IndexedDataset(write_sequences(place / "d", documents)), first, end)
    assert (marks.tolist() if marks is not None else [False] * (end - first)) == expected[first:end]
    assert marks is None or marks.any()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--documents", "0"], r"was made with bpe \("),
        ([], "give --documents FROM:TO, or --samples"),
        (["--documents", "0", "--samples", "0", "--sequence-length", "8"], "give --documents FROM:TO, or --samples"),
        (["--samples", "0"], "--samples FROM:TO and --sequence-length N belong together"),
        (["--documents", "0", "--sequence-length", "8"], "belong together"),
        (["--samples", "0", "--sequence-length", "8", "--tokens", "3"], "leave out --tokens"),
        (["--documents", "20"], "the dataset has from 0 to 19"),
        (["--documents", "3:3"], "FROM must lie below TO"),
        (["--documents", "-1"], "--documents takes FROM:TO or a number, counted from 0, not -1"),
        (["--documents", "1:\x1b"], r"not 1:\\x1b"),
        (["--documents", "9" * 400], "takes FROM:TO or a number"),
        (["--documents", "0", "--tokenizer", "OTHER"], "is another one .*give the dataset's own"),
    ],
)
def test_what_cannot_be_shown(
    tmp_path: Path, text_dataset: Path, sentencepiece_model: Path, dataset: Call, arguments: list[str], told: str
) -> None:
    words = [sentencepiece_model if each == "OTHER" else each for each in arguments]
    done = dataset("text", text_dataset, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(told, done.stderr)


def test_a_token_that_the_tokenizer_lacks(tmp_path: Path, tokenizer_folder: Path, dataset: Call) -> None:
    prefix = write_sequences(tmp_path / "d", [[[1, 300]]])
    done = dataset("text", prefix, "--documents", "0", "--tokenizer", tokenizer_folder)
    assert done.returncode == 2 and "token id 300 is none of the 300 of tokenizer bpe" in done.stderr
    write_sequences(prefix, [[[0.5]]], 7)  # type: ignore[list-item]
    done = dataset("text", prefix, "--documents", "0", "--tokenizer", tokenizer_folder)
    assert done.returncode == 2 and "d.bin holds float32, expected integer token ids" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "new", "none"),
        ("split", "none", "new", "--shards", "2"),
        ("lengths", "none", "--picture", "new.png"),
        ("text", "none", "--documents", "0"),
    ],
)
def test_a_dataset_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Call, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = dataset(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: none.bin does not exist, nor does none.idx")
    assert list(tmp_path.iterdir()) == []
