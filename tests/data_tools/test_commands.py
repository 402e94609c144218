"""The command lines of this floor, as a user types them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.errors import TrainyardError
from tools.commands import preprocess, tokenizer
from tools.commands.dataset import command_line as dataset
from tools.megatron_flags import OF_A_DATASET, OF_A_TOKENIZER, OF_PREPROCESS, refuse_megatron_flags

CHECKOUT = Path(__file__).resolve().parents[2]


def run(module: object, *arguments: object) -> Result:
    return CliRunner().invoke(module.app, [str(word) for word in arguments], catch_exceptions=False)  # type: ignore[attr-defined]


def execute(verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable}
    command = [str(CHECKOUT / "tools" / verb), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = (f'{{"text": "Line {number} of a small corpus.", "n": "{number}"}}\n' for number in range(30))
    path.write_text("".join(lines))
    return path


def test_from_text_to_a_verified_dataset(tmp_path: Path, corpus: Path) -> None:
    assert run(tokenizer, "train", corpus, "--output", tmp_path / "bpe", "--vocab-size", "270").exit_code == 0
    shown = run(tokenizer, "info", tmp_path / "bpe").output
    assert "270 ids" in shown and "<|endoftext|>" in shown
    made = run(preprocess, corpus, "--output", tmp_path / "data", "--tokenizer", tmp_path / "bpe", "--append-eod")
    assert "30 documents" in made.output and "MB/s" in made.output and "tokens/s" in made.output
    shown = run(
        dataset, "info", tmp_path / "data", "--split", "8,1,1", "--show", "6", "--tokenizer", tmp_path / "bpe"
    ).output
    for arguments in ("validation", "24", "27", "corpus.jsonl: 30 documents", "Line", "end-of-document appended"):
        assert arguments in shown
    assert "are what the manifest says" in run(dataset, "verify", tmp_path / "data").output
    manifest_path(tmp_path / "data").unlink()
    assert "none; make one with tools/dataset adopt" in " ".join(run(dataset, "info", tmp_path / "data").output.split())
    assert "adopted with id" in run(dataset, "adopt", tmp_path / "data", "--tokenizer", tmp_path / "bpe").output
    assert "adopted" in run(dataset, "info", tmp_path / "data").output


def test_what_a_dataset_holds_is_whole_in_a_pipe_and_steers_no_terminal(tmp_path: Path, tokenizer_folder: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(7):
        (folder / f"other-{number}\x1b]0;x\x07.md").touch()
    (folder / "a.jsonl").write_text(json.dumps({"text": "\x1b]52;c;ZXZpbA==\x07 on"}) + "\n")
    prefix = tmp_path / "data"
    run(preprocess, folder, "--output", prefix, "--tokenizer", tokenizer_folder)
    shown = run(dataset, "info", prefix, "--show", "90", "--tokenizer", tokenizer_folder).output
    assert read_manifest(manifest_path(prefix)).id in shown
    assert r"\x1b]52;c;ZXZpbA==\x07 on" in shown
    assert r"7 files of the folders: corpus/other-0\x1b]0;x\x07.md" in shown and "and 2 more" in shown
    assert not set(shown) & {"\x1b", "\x07"}
    assert (
        json.loads(run(tokenizer, "info", tokenizer_folder, "--json").output)["id"]
        in run(tokenizer, "info", tokenizer_folder).output.split("\n")[1]
    )


def test_how_a_dataset_was_made_is_told_in_words(tmp_path: Path, tokenizer_folder: Path) -> None:
    texts = [json.dumps({"text": "a longer text of many tokens"}), "no document", json.dumps({"text": "x"})]
    for folder in (tmp_path / "saved", tmp_path / "plain"):
        folder.mkdir()
        (folder / "train.jsonl").write_text("\n".join(texts[::2] if folder.name == "saved" else texts) + "\n")
    options = (
        "--tokenizer",
        tokenizer_folder,
        "--shuffle",
        "--seed",
        "7",
        "--max-length",
        "3",
        "--library",
        "gigatoken",
    )
    run(preprocess, tmp_path / "plain", "--output", tmp_path / "d", "--max-bad", "1", "--shard-tokens", "90", *options)
    shown = " ".join(run(dataset, "info", tmp_path / "d-00000").output.split())
    for told in (
        "order shuffled with seed 7",
        "shard number 0 from 0, ended at 90 tokens",
        "left out 1 entry of the sources: no documents",
        "cut 1 document to 3 tokens",
        "ids by gigatoken 0.",
        "compared 2 texts (0.0 MB) with the tokenizer's own library (tokenizers 0.",
    ):
        assert told in shown
    run(preprocess, f"hf:{tmp_path / 'saved'}", "--output", tmp_path / "h", "--shard", "0/1", *options)
    shown = " ".join(run(dataset, "info", tmp_path / "h-00000-of-00001").output.split())
    assert "part part 0 of 1 of the sources (--shard), counted from 0" in shown
    assert "dataset of hf: saved, split train, columns text, fingerprint" in shown


def test_a_dataset_may_be_named_by_its_files(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    for name in "ab":
        run(preprocess, corpus, "--output", tmp_path / name, "--tokenizer", tokenizer_folder)
    said = run(dataset, "verify", tmp_path / "a.idx", tmp_path / "b.bin", tmp_path / "b").output.splitlines()
    assert [line.partition(": ")[0] for line in said] == [str(tmp_path / name) for name in "abb"]
    of_two = json.loads(run(dataset, "verify", tmp_path / "a.idx", tmp_path / "b", "--json").output)
    assert [each["prefix"] for each in of_two] == [str(tmp_path / name) for name in "ab"]
    for arguments in (["info"], ["lengths"], ["text", "--documents", "0:1", "--tokenizer", tokenizer_folder]):
        of_file, of_prefix = (run(dataset, *arguments, tmp_path / name).output for name in ("a.idx", "a"))
        assert of_file == of_prefix != ""
    (tmp_path / "a.idx").rename(tmp_path / "c.idx")
    with pytest.raises(TrainyardError, match=r"c\.bin does not exist, though c.idx does"):
        run(dataset, "info", tmp_path / "c.idx")


def test_one_of_a_thing_is_not_several(tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    said = run(preprocess, tmp_path / "a.jsonl", "--output", tmp_path / "d", "--tokenizer", tokenizer_folder).output
    assert "1 document, 1 token of" in said and "note: 1 document may be too few to split" in said
    assert "1 document and 1 token are" in run(dataset, "verify", tmp_path / "d").output


def test_answers_as_json(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    prefix = tmp_path / "data"
    run(preprocess, corpus, "--output", prefix, "--tokenizer", tokenizer_folder)
    shown = json.loads(run(tokenizer, "info", tokenizer_folder, "--json").output)
    assert (shown["vocab_size"], shown["end_of_document"], shown["end_of_document_text"]) == (300, 0, "<|endoftext|>")
    arguments = ("--split", "8,1,1", "--show", "2", "--tokenizer", tokenizer_folder, "--json")
    shown = json.loads(run(dataset, "info", prefix, *arguments).output)
    assert (shown["documents"], shown["split"]["validation"]["first"], shown["manifest"]["kind"]) == (30, 24, "dataset")
    assert shown["beginning"]
    shown = json.loads(run(dataset, "verify", prefix, "--json").output)
    assert shown["verified"] and shown["documents"] == 30 and shown["settings"]["parse_special"] is False


@pytest.mark.parametrize(
    ("answers", "words", "told"),
    [
        (OF_PREPROCESS, ["--input", "a", "--output-prefix=b"], ["files or folders without a flag", "--output PREFIX"]),
        (OF_PREPROCESS, ["--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", "v"], ["--tokenizer PATH"] * 2),
        (OF_A_DATASET, ["info", "--data-path", "x"], ["prefix without a flag"]),
        (OF_A_DATASET, ["merge", "--input", "d", "--output-prefix", "x"], ["merge OUTPUT PREFIX..."] * 2),
        (OF_A_TOKENIZER, ["train", "--json-keys", "text"], ["--json-key KEY"]),
    ],
)
def test_megatrons_flags_are_answered_with_ours(answers: dict[str, str], words: list[str], told: list[str]) -> None:
    with pytest.raises(TrainyardError) as caught:
        refuse_megatron_flags(words, answers)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(told) and all(part in line for part, line in zip(told, lines, strict=True))
    refuse_megatron_flags(["--json-keys", "text", "--append-eod", "--workers", "8"], OF_PREPROCESS)


def test_megatrons_command_line_is_one_message(tmp_path: Path) -> None:
    done = execute("preprocess", "--input", "a.jsonl", "--output-prefix", tmp_path / "d", "--vocab-file", "v.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --input is Megatron-LM's: give files") and len(done.stderr.splitlines()) == 3


def test_several_keys_are_separated_by_commas(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    run(preprocess, corpus, "--output", tmp_path / "d", "--tokenizer", tokenizer_folder, "--json-keys", "text, n")
    assert (tmp_path / "d_text.idx").is_file() and (tmp_path / "d_n.idx").is_file()


def test_records_with_answers(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    prefix = tmp_path / "d"
    arguments = (corpus, "--output", prefix, "--tokenizer", tokenizer_folder, "--pairs", "text, n")
    made = run(preprocess, *arguments, "--chat-template", "plain", "--tokens", "1e2").output
    documents = len(IndexedDataset(prefix)) // 2
    assert f"{documents} documents, " in made and f"{documents} answers of " in made
    shown = run(dataset, "info", prefix).output
    assert f"{documents} answers of " in shown and "the odd-numbered sequences of each document" in shown
    assert "pairs of keys text,n, the plain template (" in shown and "reading stopped at 100 tokens" in shown
    assert "are what the manifest says" in run(dataset, "verify", prefix).output
    shown = run(dataset, "info", prefix, "--show", "60", "--tokenizer", tokenizer_folder).output
    assert (
        "0 context: User: Line 0 of a small corpus.\n\nAssistant:\n0 answer:  0<|endoftext|>\n1 context: User:" in shown
    )
    run(preprocess, *arguments, "--overwrite", "--pair-separator", "\n")
    assert (
        r"pairs of keys text,n, answers begin with '\x0a', end-of-document appended"
        in run(dataset, "info", prefix).output
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "text,n", "--chat", "c"], "--pairs and --chat exclude each other"),
        (["--json-keys", "text", "--chat", "c"], "--json-keys and --chat exclude each other"),
        (["--pairs", "text"], "--pairs 'text': give two different keys"),
        (["--chat-template", "plain"], "--chat-template is for --chat and --pairs"),
        (["--pair-separator", "x"], "--pair-separator is for --pairs without"),
        (["--chat", "c", "--pair-separator", "x"], "--pair-separator is for --pairs without"),
        (["--pairs", "text,n", "--chat-template", "plain", "--pair-separator", "x"], "--pair-separator is for --pairs"),
        (["--pairs", "text,n", "--append-eod"], "--append-eod would do nothing"),
        (["--pairs", "text,n", "--chat-template", "tokenizer"], "has no chat template"),
        (["--pairs", "text,b"], "line 1: no key 'b', only text, n; see --pairs"),
        (["--chat", "text"], "line 1: 'text' is a string, expected a list of messages"),
        (["--tokens", "1.5"], "--target-tokens (--tokens) '1.5' is no number of tokens; write 10e9 or 250000"),
        (["--tokens", "NaN"], "--target-tokens (--tokens) 'NaN' is no number"),
        (["--tokens", "many"], "--target-tokens (--tokens) 'many' is no number"),
        (["--tokens", "1e99"], "--target-tokens (--tokens) '1e99' is no number"),
        (["--tokens", "-3"], "--target-tokens (--tokens) '-3' is no number"),
        (["--target-tokens", "many"], "--target-tokens (--tokens) 'many' is no number"),
        (["--target-tokens", "9e6"], "--target-tokens (--tokens) asks for 9,000,000; give more sources"),
    ],
)
def test_records_asked_for_wrongly(
    tmp_path: Path, corpus: Path, tokenizer_folder: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(TrainyardError) as caught:
        run(preprocess, corpus, "--output", tmp_path / "d", "--tokenizer", tokenizer_folder, *arguments)
    assert message in str(caught.value)
    assert not list(tmp_path.glob("d*"))


def test_a_mistake_is_one_message_and_exit_code_2(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    done = execute(
        "preprocess", corpus, "--output", tmp_path / "d", "--tokenizer", tokenizer_folder, "--json-keys", "b"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {corpus}, line 1: no key 'b', only text, n; see --json-keys\n"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_arithmetic_from_an_extended_tokenizer_to_a_report(tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<A>\n<B>\n")
    made = run(
        *(tokenizer, "extend", tokenizer_folder, "--output", tmp_path / "bpe", "--add-file", tmp_path / "tokens.txt"),
        *("--add", "<C>", "--multiplication", "--first-id", "310"),
    ).output
    assert "bpe: tokenizer of 358 ids, 48 of them added from id 310, id " in made
    command = read_manifest(tmp_path / "bpe" / "manifest.json").by.command
    assert command.endswith("bpe --output bpe --add-file tokens.txt --add '<C>' --multiplication --first-id 310")
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{number}: 3 * 4 = 12, 5*5"}}\n' for number in range(30)))
    words = [tmp_path / "a.jsonl", "--output", tmp_path / "d", "--tokenizer", tmp_path / "bpe", "--append-eod"]
    told = run(preprocess, *words, "--inject", "weak", "--synthetic-arithmetic", "10", "--seed", "3").output
    assert "d: 40 documents" in told and "made up: 10 documents of multiplication facts among them\n" in told
    shown = run(dataset, "info", tmp_path / "d").output
    facts = json.loads(run(dataset, "info", tmp_path / "d", "--json").output)["manifest"]["facts"]
    for name, told_as in (
        (r"injected: (.*)\n", r"injected +(.*)\n"),
        ("by tenth of documents: (.*)", "tenth of documents +(.*)"),
    ):
        assert re.findall(name, told) == re.findall(told_as, shown) != []
    assert facts["injection"]["with_product"]["<MUL_3_4_12>"] >= 30 and min(facts["injection"]["tenths"]) > 0
    assert "10 documents of multiplication facts made up from seed 3" in shown
    refused = execute("preprocess", *words[:-1], "--overwrite", "--seed", "3")
    assert refused.returncode == 2 and "--seed 3 has no effect without --synthetic-arithmetic" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("dataset", "info", "none"),
        ("dataset", "info", "none", "--show", "3"),
        ("dataset", "verify", "none"),
        ("dataset", "adopt", "none", "--tokenizer", "none"),
        ("tokenizer", "info", "none"),
        ("tokenizer", "train", "none.txt", "--output", "new", "--vocab-size", "300"),
        ("tokenizer", "extend", "none", "--output", "new", "--multiplication"),
    ],
)
def test_every_command_reports_its_mistakes(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = execute(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["preprocess", "dataset", "tokenizer"])
def test_start_up_is_light(verb: str) -> None:
    """A cold --help takes a fraction of a second because nothing heavy is imported for it."""
    heavy = ("torch", "numpy", "pydantic", "pyarrow", "tokenizers", "sentencepiece", "transformers")
    module = f"tools.commands.{verb}.command_line" if verb == "dataset" else f"tools.commands.{verb}"
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout.strip() == "[]"
