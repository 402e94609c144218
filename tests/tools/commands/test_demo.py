"""What the demo computes and shows; `make demo` runs the whole of it."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.events.writing import EventWriter
from megatron_patches.run.reading import load_run
from tests.small_training import SmallData
from tools.commands import demo
from tools.commands.demo import CHECKOUT, SCRIPT, Demo, held_out_tokens, launched, newest_step, unigram_entropy
from tools.commands.stdlib_corpus import stdlib_documents, write_stdlib_corpus


def test_entropy_of_known_tokens() -> None:
    assert unigram_entropy(np.array([3, 3, 3])) == 0
    assert unigram_entropy(np.arange(8).repeat(5)) == pytest.approx(math.log(8))
    assert unigram_entropy(np.array([0, 0, 2, 9])) == pytest.approx(1.5 * math.log(2))


def test_held_out_tokens_are_the_validation_documents(small_data: SmallData, tmp_path: Path) -> None:
    """Split 8,2 of 200 documents: the last 40."""
    from data_tools.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(small_data.folder / "text")
    expected = np.concatenate([dataset[document] for document in range(160, 200)])
    assert held_out_tokens(small_data.run(tmp_path)).tolist() == expected.tolist()


def test_the_corpus_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert write_stdlib_corpus(first) == write_stdlib_corpus(second) > 500
    assert first.read_bytes() == second.read_bytes()
    rows = [json.loads(line) for line in first.read_text().splitlines()]
    sources = [row["source"] for row in rows]
    assert len(set(sources)) == len(sources)
    assert {"json/decoder.py", "help/lambda"} <= set(sources)
    assert not any(source.startswith(("test/", "site-packages/")) for source in sources)
    assert sources != sorted(sources)
    assert all(row["text"].strip() for row in rows)
    assert sorted(stdlib_documents()) == sorted((row["source"], row["text"]) for row in rows)


def test_an_earlier_run_is_set_aside_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "tr0a-4M-stdlib"
    shown = Demo(load_run(CHECKOUT / SCRIPT.with_suffix(".yaml")), RunFolder(directory))
    shown.set_aside()
    assert capsys.readouterr().out == ""
    for number in (1, 2):
        (directory / "checkpoints").mkdir(parents=True)
        (directory / "checkpoints" / "step").write_text(str(number))
        shown.set_aside()
        aside = tmp_path / f"tr0a-4M-stdlib.earlier-{number}"
        assert (aside / "checkpoints" / "step").read_text() == str(number)
        assert f"$ mv {directory} {aside}" in capsys.readouterr().out
    assert not directory.exists()


@pytest.mark.slow
def test_a_product_that_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    shown = Demo(load_run(CHECKOUT / SCRIPT.with_suffix(".yaml")), RunFolder(tmp_path / "run"))
    command = [sys.executable, "-c", "open('made', 'a').write('x')"]
    shown.make("first", "made", command)
    shown.make("second", "made", command)
    assert (tmp_path / "made").read_text() == "x"
    assert "made is there already" in capsys.readouterr().out
    with pytest.raises(TrainyardError, match="ended with 3"):
        shown.make("third", "other", [sys.executable, "-c", "raise SystemExit(3)"])


def test_newest_step(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    writer = EventWriter(tmp_path, "0001", "trainer")
    writer.write("start", step=0)
    for step in (1, 2, 3):
        writer.write("step", step=step)
    writer.close()
    assert newest_step(tmp_path) == 3


def test_a_launch_that_is_not_waited_for_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "launch.sh"
    script.write_text(
        f"trap 'touch {tmp_path}/saved; exit 75' TERM\ntouch {tmp_path}/ready\nwhile :; do sleep 0.05; done\n"
    )
    monkeypatch.setattr(demo, "SCRIPT", script)

    def interrupted() -> None:
        with launched():
            while not (tmp_path / "ready").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "saved").exists()
    assert "saves itself first" in capfd.readouterr().err
