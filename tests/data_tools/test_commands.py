"""The command lines of this floor, as a user types them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from data_tools.datasets.manifest import manifest_path
from tools.commands import preprocess, tokenizer
from tools.commands.dataset import command_line as dataset

CHECKOUT = Path(__file__).resolve().parents[2]


def run(module: object, *arguments: object) -> Result:
    return CliRunner().invoke(module.app, [str(word) for word in arguments], catch_exceptions=False)  # type: ignore[attr-defined]


def execute(verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable}
    command = [CHECKOUT / "tools" / verb, *map(str, arguments)]
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


def test_several_keys_are_separated_by_commas(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    run(preprocess, corpus, "--output", tmp_path / "d", "--tokenizer", tokenizer_folder, "--json-keys", "text, n")
    assert (tmp_path / "d_text.idx").is_file() and (tmp_path / "d_n.idx").is_file()


def test_a_mistake_is_one_message_and_exit_code_2(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    done = execute(
        "preprocess", corpus, "--output", tmp_path / "d", "--tokenizer", tokenizer_folder, "--json-keys", "b"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {corpus}, line 1: no key 'b', only text, n; see --json-keys\n"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("dataset", "info", "none"),
        ("dataset", "info", "none", "--show", "3"),
        ("dataset", "verify", "none"),
        ("dataset", "adopt", "none", "--tokenizer", "none"),
        ("tokenizer", "info", "none"),
        ("tokenizer", "train", "none.txt", "--output", "new", "--vocab-size", "300"),
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
