"""`tools/dataset bench`, as a user types it."""

import json
import shlex
from pathlib import Path

import pytest

from data_tools.benchmark.comparison import Comparison, Measured
from data_tools.benchmark.equality import Files
from data_tools.benchmark.result import Setting
from data_tools.benchmark.straight_from_text import Fed
from megatron_patches.configuration.yaml_text import parse_yaml
from tests.command_line import Call, verb
from tools.commands.dataset import command_line
from tools.commands.dataset.bench_tables import COLUMNS, print_comparison, print_feeding, print_figures
from tools.pages.documents import Figure


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return verb(command_line, monkeypatch, capsys)


HARD = [
    "中文和日本語のテキスト", "مرحبا بالعالم", "👍🏽 🇨🇭", "e\u0301a\u0308 \u200b\u202e", "\x00\x01\x7f\r\n\t \n\n", " ",
    "<|endoftext|> </s> [SEP] <unk>", "a" * 20_000, "\ud7ff\ue000 \U0010ffff", "  two  spaces\u00a0and 1234567890",
]  # fmt: skip


@pytest.mark.slow
def test_all_make_the_same_files(dataset: Call, tmp_path: Path) -> None:
    sources = [file.read_text() for file in sorted(Path(command_line.__file__).parent.glob("*.py"))]
    lines = [json.dumps({"text": text}, ensure_ascii=number % 2 == 0) for number, text in enumerate(sources + HARD)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines) + "\n")
    command = "bench FOLDER/text.jsonl --vocab-size 400 --rounds 0 --folder FOLDER --json FOLDER/found.json"
    done = dataset(*shlex.split(command.replace("FOLDER", str(tmp_path))))
    assert done.returncode == 0, done.stderr
    assert "all made the same .bin and .idx, byte for byte: " in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["name"] for each in found["measured"]] == ["tools/preprocess", "pool", "whole-file"]
    assert all(20e6 < each["memory"] < 2e9 and each["whole"] == [] for each in found["measured"])
    assert found["left_out"] == {} and found["identical"]["documents"] == len(lines)
    assert "--json" not in found["command"]
    assert {file.name for file in tmp_path.iterdir()} == {"found.json", "text.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "give one text: a .jsonl file, --make-text MB, or --random-words MB"),
        ("x.jsonl --make-text 1", "give one text"),
        ("--make-text 1 --tokenizer x --kind bpe", "--kind and --vocab-size describe a tokenizer to train"),
        ("x.jsonl --stream --no-pool", "--stream has no peers"),
        ("x.jsonl --tokenizer x", "x.jsonl is no file"),
        ("--make-text 1 --tokenizer x", "tokenizer x is neither a folder nor a .model file"),
    ],
)
def test_what_it_refuses(
    dataset: Call, arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = dataset("bench", *arguments.split())
    assert done.returncode == 2
    assert words in done.stderr.replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("timed", [True, False])
def test_what_it_prints(capsys: pytest.CaptureFixture[str], timed: bool) -> None:
    times = ([61.25], [1.25], [118.0]) if timed else ([], [], [])
    ours = Measured("tools/preprocess", "hashed, with a manifest", *times, 300_000_000)
    pool = Measured("pool", "2 processes", *([10 * each[0]] if each else [] for each in times), 1_100_000_000)
    found = Comparison(
        [ours, pool], {"whole-file": "gigatoken refuses this tokenizer"}, Files(("a", "b"), 12_345, 6789)
    )
    setting = Setting("12,345 files", 200_000_000, "bpe, up to 16,000 ids", "tools/dataset bench --make-text 200")
    print_comparison(found, setting)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= COLUMNS
    row = next(line for line in printed.splitlines() if line.startswith("pool  "))
    assert (
        row.split()
        == ("pool 612.50 s 12.50 s 600.00 s 1180.00 s 0.3 1.1 GB" if timed else "pool - - - - - 1.1 GB").split()
    )
    for column in ("whole", "work"):
        assert (f"{column}: tools/preprocess is 10.00 times as fast as pool" in printed.splitlines()) == timed
    assert "whole-file is left out: gigatoken refuses this tokenizer" in printed
    print_figures(found, setting, "fast-text")
    entries = {name: Figure.model_validate(entry) for name, entry in parse_yaml(capsys.readouterr().out, "").items()}
    values = {name.removeprefix("fast-text-"): entry.value for name, entry in entries.items()}
    memory = {"preprocess-memory": "300 MB", "pool-memory": "1.1 GB"}
    assert memory.items() <= values.items()
    assert len(values) == (8 if timed else 2)
    assert values.get("pool-ratio") == ("10.0 times" if timed else None)
    assert {entry.command for entry in entries.values()} == {"tools/dataset bench --make-text 200"}


def test_what_is_printed_of_a_faster_peer_with_its_own_ids(capsys: pytest.CaptureFixture[str]) -> None:
    ours = Measured("tools/preprocess", "hashed, with a manifest", [4.0], [3.0], [8.0], 300_000_000)
    pool = Measured("pool", "2 processes", [2.0], [0.5], [4.0], 100_000_000, own_tokens=6790)
    left_out, files = {"whole-file": "gigatoken refuses it: " + "because " * 30}, Files(("a", "b"), 12_345, 6789)
    setting = Setting("12,345 files", 200_000_000, "sentencepiece, up to 16,000 ids", "tools/dataset bench")
    print_comparison(Comparison([ours, pool], left_out, files), setting)
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= COLUMNS
    assert printed[-4:] == [
        "whole: pool is 2.00 times as fast as tools/preprocess",
        "work: tools/preprocess is 1.50 times as fast as pool",
        "made: 12,345 documents, 6,789 tokens",
        "pool has ids of its own: 6,790 tokens in as many documents",
    ]
    same = Measured("whole-file", "gigatoken")
    print_comparison(Comparison([Measured("tools/preprocess", ""), pool, same], {}, files), setting)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "tools/preprocess and whole-file made the same .bin and .idx, byte for byte:",
        "12,345 documents, 6,789 tokens",
        "pool has ids of its own: 6,790 tokens in as many documents",
    ]
    print_figures(Comparison([ours, pool], {}, files), setting, "slow")
    entries = parse_yaml(capsys.readouterr().out, "")
    assert entries["slow-pool-ratio"]["value"] == "2.0 times"
    assert entries["slow-pool-ratio"]["of"].startswith("pool as fast as tools/preprocess")


def test_what_a_loader_feeds(capsys: pytest.CaptureFixture[str]) -> None:
    measured = Measured("straight from text", "2 cores", [12.0], [2.0], [18.0], 400_000_000)
    setting = Setting(
        "12,345 files", 200_000_000, "bpe, up to 16,000 ids", "tools/dataset bench --make-text 200 --stream"
    )
    print_feeding(Fed(measured, 10_000_000, 2), setting)
    printed = capsys.readouterr().out
    assert "1,000,000 tokens/s from 2 cores; 10,000,000 tokens of an epoch" in printed
    # 6 operations for each of 1.3e9 parameters and 1e6 tokens/s are 7.8e15; an H100 at 40 % of 989e12 does 396e12
    assert "that feeds 19.7 H100s that train 1.3B parameters at 40% of their peak" in printed
