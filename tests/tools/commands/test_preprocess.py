"""The command line of preprocessing: what a run says for it, its parts in an array of jobs, what it shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import read_dataset_manifest
from data_tools.datasets.preprocessing.progress import Progress
from data_tools.text.tokenizer_training import train_bpe
from megatron_patches.errors import TrainyardError
from tools import preprocess_progress
from tools.commands import preprocess
from tools.preprocess_progress import Meter, short

CHECKOUT = Path(__file__).resolve().parents[3]
BASELINE = CHECKOUT / "train" / "tr3-1B3-baseline" / "tr3m-1B3-pile.yaml"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": f"Line {number} of a corpus."}) + "\n" for number in range(40)))
    train_bpe([path], tmp_path / "bpe", 270)
    return path


def run_yaml(folder: Path, data: str) -> Path:
    path = folder / "small-run.yaml"
    path.write_text(f"base: {BASELINE}\nwhy: a test\ndata:\n  tokenizer: {folder / 'bpe'}\n{data}")
    return path


def invoke(*arguments: object) -> str:
    return CliRunner().invoke(preprocess.app, [str(word) for word in arguments], catch_exceptions=False).output


def test_a_run_says_tokenizer_output_and_that_documents_end(tmp_path: Path, corpus: Path) -> None:
    run = run_yaml(tmp_path, f"  path: {tmp_path / 'made'}\n")
    invoke(corpus, "--run", run, "--target-tokens", "100")
    facts = read_dataset_manifest(tmp_path / "made")[1]
    assert facts.settings is not None and facts.settings.append_eod and facts.settings.tokens_asked == 100
    with pytest.raises(TrainyardError, match=r"--output .*other, but .*small-run.yaml reads .*made; leave out"):
        invoke(corpus, "--run", run, "--output", tmp_path / "other")
    with pytest.raises(TrainyardError, match=r"--source code is one of a run's; add --run"):
        invoke(corpus, "--output", tmp_path / "other", "--tokenizer", tmp_path / "bpe", "--source", "code")
    with pytest.raises(TrainyardError, match="has the sources data, and none is called code"):
        invoke(corpus, "--run", run, "--source", "code")


def test_a_source_of_raw_text_says_inputs_and_key_too(tmp_path: Path, corpus: Path) -> None:
    source = f"{{name: raw, text: {{path: {corpus}, key: text, append_eod: false}}}}"
    run = run_yaml(tmp_path, f"  path: null\n  sources: [{source}]\n")
    invoke("--run", run, "--output", tmp_path / "made")
    facts = read_dataset_manifest(tmp_path / "made")[1]
    assert facts.documents == 40 and facts.settings is not None and not facts.settings.append_eod
    with pytest.raises(TrainyardError, match=r"--json-keys body, but source raw reads text"):
        invoke("--run", run, "--output", tmp_path / "other", "--json-keys", "body")
    with pytest.raises(TrainyardError, match="no --output is given"):
        invoke("--run", run)


@pytest.mark.slow
def test_jobs_of_an_array_make_what_one_job_makes(tmp_path: Path, corpus: Path) -> None:
    words = f"'{corpus}' --output '{tmp_path / 'part'}' --tokenizer {tmp_path / 'bpe'} --append-eod"
    for number in range(2):
        environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "PREPROCESS": words}
        environment |= {
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_TASK_COUNT": "2",
            "TRAINYARD_HOME": str(CHECKOUT),
        }
        script = CHECKOUT / "slurm" / "preprocess-array.slurm"
        subprocess.run(["bash", str(script)], env=environment, check=True, cwd=tmp_path, capture_output=True)
    invoke(corpus, "--output", tmp_path / "whole", "--tokenizer", tmp_path / "bpe", "--append-eod")
    parts = [IndexedDataset(tmp_path / f"part-0000{number}-of-00002") for number in range(2)]
    whole = IndexedDataset(tmp_path / "whole")
    assert [each.tolist() for part in parts for each in part] == [each.tolist() for each in whole]
    again = subprocess.run(["bash", str(script)], env=environment, check=True, cwd=tmp_path, capture_output=True)
    assert b"note: the same command finished this before" in again.stderr
    assert b"part-00001-of-00002: " in again.stdout and b"MB/s" not in again.stdout


@pytest.mark.parametrize(("text", "told"), [("8", "write NUMBER/HOW MANY"), ("a/8", "write NUMBER/HOW MANY")])
def test_a_share_that_is_none(tmp_path: Path, corpus: Path, text: str, told: str) -> None:
    with pytest.raises(TrainyardError, match=told):
        invoke(corpus, "--output", tmp_path / "d", "--tokenizer", tmp_path / "bpe", "--shard", text)


def test_an_option_of_the_hub_needs_an_input_of_it(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(TrainyardError, match="--split and --no-streaming: only for inputs hf:NAME"):
        invoke(corpus, "--output", tmp_path / "d", "--tokenizer", tmp_path / "bpe", "--split", "a", "--no-streaming")


def test_a_bar_drops_whole_parts_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    preprocess_progress._Bar(30).update(1, 4, "reading 11 MB, 1.0 MB/s, 11 k documents")
    assert capsys.readouterr().err == "\r 25% reading 11 MB, 1.0 MB/s\x1b[K"


def test_progress_in_a_pipe_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 0.0, 5.0, 11.0, 12.0])
    monkeypatch.setattr(preprocess_progress.time, "monotonic", lambda: next(seconds))
    meter = Meter()
    for done in (0, 5_000_000, 11_000_000, 12_000_000):
        meter.show(Progress("reading", done // 1000, done // 4, done, 33_000_000))
    meter.close()
    line = "reading 11 MB of 33 MB, 1.0 MB/s, 250 k tokens/s, 0:22 left, 11 k documents\n"
    assert capsys.readouterr().err == line and len(line) <= 80
    assert [short(number) for number in (0, 999, 1234, 5.67e9)] == ["0", "999", "1.23 k", "5.67 G"]
