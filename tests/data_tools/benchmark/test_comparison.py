"""Contenders in turns: who is compared with whom, and what ends a comparison."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_tools.benchmark import comparison
from data_tools.benchmark.comparison import Comparison, Measured, compare
from data_tools.benchmark.contenders import OURS, Contender, Task
from data_tools.benchmark.equality import Files, files_of, first_difference
from data_tools.benchmark.peer import CANNOT
from data_tools.benchmark.plain_writer import PlainWriter
from data_tools.benchmark.result import Setting, as_json, medians_of, ratios_of
from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from megatron_patches.errors import TrainyardError

DOCUMENTS = [[5, 6, 7], [], [8], [9, 10]]
COPIES = 'cp "$0.bin" "$1.bin" && cp "$0.idx" "$1.idx"'


def write(prefix: Path, documents: Sequence[list[int]]) -> Path:
    writer = PlainWriter(prefix, np.dtype("<u2"))
    for each in documents:
        writer.add(each)
    writer.finish()
    return prefix


def compared(
    monkeypatch: pytest.MonkeyPatch, folder: Path, others: dict[str, list[str]], rounds: int, own_ids: str = ""
) -> tuple[Comparison, list[str]]:
    """A comparison of pretended contenders, which copy a dataset, and the turns that it told."""
    (folder / "text.jsonl").write_text("a line\n")
    words = {OURS: ["sh", "-c", COPIES, str(write(folder / "same", DOCUMENTS)), "PREFIX"], **others}
    found = [Contender(name, "", tuple(each), own_ids=name == own_ids) for name, each in words.items()]
    monkeypatch.setattr(comparison, "contenders", lambda task, peers: (found, {"missing": "no library"}))
    told: list[str] = []
    return compare(folder / "text.jsonl", Task(folder, 1), list(others), rounds, folder, told.append), told


@pytest.mark.slow
def test_turns_alternate_and_peers_that_cannot_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    others = {
        "same": ["sh", "-c", COPIES, str(tmp_path / "same"), "PREFIX"],
        "unable": ["sh", "-c", "echo no such kind; exit 3"],
    }
    found, told = compared(monkeypatch, tmp_path, others, 2)
    assert found.left_out == {"missing": "no library", "unable": "no such kind"}
    assert found.files == files_of(write(tmp_path / "expected", DOCUMENTS))
    assert (found.files.documents, found.files.tokens) == (4, 6)
    assert told == [
        *(f"{name}: memory" for name in (OURS, "same", "unable")),
        *(f"{name}: round 1 of 2" for name in (OURS, "same")),
        *(f"{name}: round 2 of 2" for name in ("same", OURS)),
    ]
    for each in found.measured:
        assert len(each.whole) == len(each.start) == len(each.cpu) == 2
        assert each.memory > 0 and 0 < min(each.start) < max(each.start) < 10
    assert list(tmp_path.glob("tmp*")) == []


@pytest.mark.slow
def test_another_dataset_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [*DOCUMENTS[:3], [9, 11]])
    with pytest.raises(TrainyardError, match="other: its text 2 that is not empty has other tokens than ours from"):
        compared(monkeypatch, tmp_path, {"other": ["sh", "-c", COPIES, str(other), "PREFIX"]}, 0)


@pytest.mark.slow
def test_a_peer_may_have_its_own_ids_but_no_other_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [*DOCUMENTS[:3], [9, 11, 12]])
    others = {name: ["sh", "-c", COPIES, str(tmp_path / name), "PREFIX"] for name in ("other", "same")}
    found, _ = compared(monkeypatch, tmp_path, others, 1, own_ids="other")
    assert [each.own_tokens for each in found.measured] == [None, 7, None]
    assert found.files == files_of(tmp_path / "same")
    write(other, DOCUMENTS[:3])
    with pytest.raises(TrainyardError, match="other: it has 3 documents, 2 of them with text, where ours has 4 and 3"):
        compared(monkeypatch, tmp_path, {"other": others["other"]}, 0, own_ids="other")


@pytest.mark.slow
def test_a_model_that_is_not_t5s_is_refused(tmp_path: Path) -> None:
    import sentencepiece

    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a b"}\n')
    models = {"t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, "other": {}}
    for name, ids in models.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["some words to learn from, a few of them"] * 10), vocab_size=60,
            model_prefix=str(tmp_path / name), hard_vocab_limit=False, minloglevel=2, **ids,
        )  # fmt: skip
        model, prefix = str(tmp_path / f"{name}.model"), str(tmp_path / name)
        words = [sys.executable, "-m", "data_tools.benchmark.pool_peer", str(text), model, prefix]
        words += ["--end", "1", "--dtype", "<u2", "--workers", "1"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == (0 if name == "t5" else CANNOT), done.stderr
        if name == "t5":
            library = sentencepiece.SentencePieceProcessor(model_file=model)
            assert np.fromfile(bin_path(tmp_path / name), "<u2").tolist() == [*library.encode("a b"), 1]
        else:
            assert done.stdout.startswith("transformers' T5Tokenizer takes ids 0, 1 and 2 for padding")


@pytest.mark.slow
def test_a_failure_ends_it_with_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match="broken failed with exit code 1: out of luck"):
        compared(monkeypatch, tmp_path, {"broken": ["sh", "-c", "echo out of luck >&2; exit 1"]}, 0)


@pytest.mark.parametrize(
    ("theirs", "found"),
    [
        ([[5, 6, 1], [], [8], [9, 10]], r"text 0 .* from number 2 on: \[1\], where ours has \[7\]"),
        ([[5, 6, 7], [], [8, 8], [9, 10]], r"text 1 .* from number 1 on: \[8\], where ours has \[\]"),
        ([[5, 6, 7], [], [8]], "it has 3 documents, 2 of them with text, where ours has 4 and 3"),
        ([[5, 6, 7], [8], [], [9, 10]], "its tokens are those of ours, but its files are laid out in another way"),
    ],
)
def test_the_first_difference_is_named(tmp_path: Path, theirs: list[list[int]], found: str) -> None:
    ours, other = write(tmp_path / "ours", DOCUMENTS), write(tmp_path / "theirs", theirs)
    assert files_of(ours) != files_of(other)
    with pytest.raises(TrainyardError, match=found):
        raise TrainyardError(first_difference(ours, other))


def test_peers_write_what_our_writer_writes(tmp_path: Path) -> None:
    write(tmp_path / "plain", DOCUMENTS)
    with IndexedDatasetWriter(tmp_path / "ours", np.uint16) as writer:
        for each in DOCUMENTS:  # an empty text has no sequence, as Megatron-LM's tool has it
            writer.add_documents(np.array(each, dtype=np.int64), [len(each)] * bool(each), [int(bool(each))])
    for path in (bin_path, idx_path):
        assert path(tmp_path / "plain").read_bytes() == path(tmp_path / "ours").read_bytes()


def test_medians_and_ratios() -> None:
    ours = Measured(OURS, "", [2.0, 3.0, 9.0], [1.0, 1.0, 2.0], [4.0, 5.0, 6.0], 10)
    peer = Measured("pool", "", [30.0, 60.0, 90.0], [3.0, 4.0, 5.0], [1.0, 1.0, 1.0], 20)
    found = Comparison([ours, peer], {}, Files(("a", "b"), 1, 2))
    of_ours = medians_of(ours)
    assert (of_ours.whole, of_ours.start, of_ours.work, of_ours.cpu, of_ours.memory) == (3.0, 1.0, 2.0, 5.0, 10)
    assert ratios_of(found) == {"pool": (20.0, 28.0)}
    told = json.loads(json.dumps(as_json(found, Setting("text", 5, "bpe", "tools/dataset bench"))))
    assert told["ratios"] == {"pool": {"whole": 20.0, "work": 28.0}}
    assert told["measured"][1]["whole"] == [30.0, 60.0, 90.0]
    assert ratios_of(Comparison([Measured(OURS, ""), Measured("pool", "")], {}, found.files)) == {}
