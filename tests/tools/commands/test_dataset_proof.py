"""What a run was trained on, compared with its files: steps of all launches, checkpoints, and what is told of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.samples.delivered import FACT, Delivered
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import build_manifest, read_manifest, write_manifest
from megatron_patches.events.writing import EventWriter
from megatron_patches.parallel.layout import Layout
from tests.command_line import Call, verb
from tests.small_training import SmallData
from tests.tools.pretended_training import PretendedRun, two_sources, write_dataset
from tools.commands.dataset import command_line as dataset
from tools.run_views import proof, read_order
from tools.run_views.recorded_steps import LaunchSteps, gaps

NAME = "tr900a-1K-proof"


@pytest.fixture
def run(tmp_path: Path, small_data: SmallData, monkeypatch: pytest.MonkeyPatch) -> PretendedRun:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return PretendedRun(two_sources(tmp_path, small_data.folder / "tokenizer"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return verb(dataset, monkeypatch, capsys)


def change_token(prefix: Path, token: int, value: int) -> int:
    """What a token of a .bin was before it became this."""
    tokens = np.memmap(prefix.with_suffix(".bin"), np.uint16, mode="r+")
    before = int(tokens[token])
    tokens[token] = value
    tokens.flush()
    return before


def test_all_launches_layouts_and_checkpoints_are_equal(run: PretendedRun, call: Call) -> None:
    """A resume on another layout, a kill that loses steps, and a rollback that leaves out samples."""
    run.train(0, 5, save=(3,))
    run.train(3, 8, Layout(2, 2, 2), micro_batch=1, save=(6,))
    run.train(6, 9, Layout(1, 1, 4), micro_batch=2)
    run.train(3, 12, micro_batch=8, save=(9, 12), skip_samples=[[26, 31], [40, 48]])
    done = call("proof", NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert [re.split("  +", line) for line in done.stdout.splitlines()] == [
        ["launch or checkpoint", "steps", "compared", "samples", "result"],
        ["launch 0001", "1 to 5", "5", "40", "equal"],
        ["launch 0002", "4 to 8", "5", "40", "equal"],
        ["launch 0003", "7 to 9", "3", "24", "equal"],
        ["launch 0004", "4 to 12", "9", "72", "equal"],
        ["step-0000000003", "24", "equal"],
        ["step-0000000006", "48", "equal"],
        ["step-0000000009", "72", "equal"],
        ["step-0000000012", "96", "equal"],
        [f"{NAME}: 22 steps delivered what the files hold, in this order"],
    ]


def test_pieces_and_progress(run: PretendedRun, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read three samples at once, of one step at a time, and a word after each."""
    run.train(0, 4, save=(4,))
    monkeypatch.setattr(proof, "SAMPLES_AT_ONCE", 8)
    monkeypatch.setattr(proof, "_SECONDS", 0)
    monkeypatch.setattr(read_order, "TOKENS_AT_ONCE", 3 * 17)
    done = call("proof", NAME)
    assert done.returncode == 0
    assert re.fullmatch(
        r"step 1 of launch 0001: 25% of the samples, about \d+ s to go\n.*\nstep 3 of launch 0001: 75% .*\n",
        done.stderr,
    )


def test_running_hashes_where_records_are_missing(run: PretendedRun, call: Call) -> None:
    """A checkpoint's is computed from the files where the steps before it are not all on record."""
    run.train(0, 6, save=(3, 6))
    run.train(6, 8, save=(8,))
    events = run.run.events / "0001-trainer.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    events.write_text("".join(line for line in lines if '"step": 2,' not in line))
    found = json.loads(call("proof", NAME, "--json").stdout)
    assert found["equal"] and [each["compared"] for each in found["launches"]] == [5, 2]
    assert [each["equal"] for each in found["checkpoints"]] == [True, True, True]


def test_other_sources_from_a_step_on(run: PretendedRun, call: Call, tmp_path: Path, small_data: SmallData) -> None:
    """The change is made while the run is at step 6, and lies ahead of it then."""
    write_dataset(tmp_path / "c", small_data.folder / "tokenizer", 5)
    run.train(0, 6, save=(6,))
    changes = [{"from_step": 8, "sources": [{"name": "c", "path": str(tmp_path / "c")}, run.config.data.sources[1]]}]
    section = type(run.config.data).model_validate({**run.config.data.model_dump(), "changes": changes})
    run.train(6, 12, Layout(1, 1, 2), save=(12,), changes=section.changes)
    done = json.loads(call("proof", NAME, "--json").stdout)
    assert done["equal"] and [each["compared"] for each in done["launches"]] == [6, 6]
    assert [each["equal"] for each in done["checkpoints"]] == [True, True]
    change_token(tmp_path / "c", 3, 299)
    found = json.loads(call("proof", NAME, "--json").stdout)
    assert not found["equal"] and found["launches"][0]["differing"] == []
    assert found["launches"][1]["first_difference"]["step"] > 8


def test_one_changed_token_is_named_with_the_first_step_that_read_it(
    run: PretendedRun, call: Call, tmp_path: Path
) -> None:
    run.train(0, 12, save=(3, 12))
    before = change_token(tmp_path / "a", 77, 299)
    done = call("proof", NAME)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    step = int(re.search(r"launch 0001 .* differs from step (\d+) on", done.stdout)[1])  # type: ignore[index]
    assert "one change explains it: token 13 of sample 4 of source a (place " in done.stdout
    assert f") was {before} and is 299 now" in done.stdout
    assert f"tools/dataset verify {tmp_path}/a" in done.stdout
    assert "samples by source: a 6, b 2" in done.stdout
    # the steps before it, and the checkpoint before it, are equal
    within = json.loads(call("proof", NAME, "--steps", f"1:{step}", "--json").stdout) if step > 1 else {"equal": True}
    assert within["equal"]
    told = {line.split()[0]: line.split()[-1] for line in lines if line.startswith("step-")}
    assert told == {"step-0000000003": "equal" if step > 3 else "differs", "step-0000000012": "differs"}


def test_tokens_that_training_does_not_read_are_not_compared(run: PretendedRun, call: Call, tmp_path: Path) -> None:
    """Those of validation, and those behind the last whole sample of training."""
    run.train(0, 4, save=(4,), split="3,1")
    opened = IndexedDataset(tmp_path / "a")
    end = opened.document_token_offset(3 * opened.number_of_documents // 4)
    change_token(tmp_path / "a", len(opened.tokens) - 1, 299)
    change_token(tmp_path / "a", end, 299)
    assert (end - 1) % 16, "there is a tail"
    change_token(tmp_path / "a", end - 1, 299)
    assert json.loads(call("proof", NAME, "--json").stdout)["equal"]


def test_swapped_samples_are_named(run: PretendedRun, call: Call) -> None:
    run.train(0, 4, swap=(3, 1, 6), save=(2, 4))
    run.train(2, 4, save=(4,))
    found = json.loads(call("proof", NAME, "--json").stdout)
    assert [each["differing"] for each in found["launches"]] == [[3], []]
    assert found["launches"][0]["first_difference"]["explanations"] == ["the samples at places 17 and 22 were swapped"]
    assert [each["equal"] for each in found["checkpoints"]] == [True, True]


def test_another_dataset_in_the_place_of_one(
    run: PretendedRun, call: Call, tmp_path: Path, small_data: SmallData
) -> None:
    run.train(0, 4, save=(4,))
    for path in tmp_path.glob("b.*"):
        path.unlink()
    write_dataset(tmp_path / "b", small_data.folder / "tokenizer", 9)
    done = call("proof", NAME)
    assert done.returncode == 1
    assert re.search("launch 0001 .* differs from step 1 on", done.stdout)
    assert "no single token and no pair of samples explains it" in done.stdout
    assert re.search(
        rf"source b: {tmp_path}/b is dataset [0-9a-f]{{12}}, on which step-0000000004 was not trained", done.stdout
    )


def test_a_damaged_checkpoint_fact(run: PretendedRun, call: Call) -> None:
    run.train(0, 4, save=(2,))
    saved = run.saved[2]
    assert saved is not None
    run.saved[2] = saved.after(5, 0)
    run.train(2, 4, save=(4,))
    done = call("proof", NAME)
    assert done.returncode == 1
    assert re.search("step-0000000002 +16 +equal\nstep-0000000004 +32 +differs\n", done.stdout)


def test_what_is_not_on_record_is_said(run: PretendedRun, call: Call) -> None:
    run.train(0, 4, earlier_version=True, save=(4,))
    assert call("proof", NAME).returncode == 2
    run.train(4, 6, save=(6,))
    done = call("proof", NAME)
    assert done.returncode == 0
    assert "launch 0001: steps 1 to 4 have no hash that can be compared: recorded by an earlier version" in done.stdout
    assert re.search("step-0000000006 +48 +no running hash on record", done.stdout)


def test_steps_that_nothing_is_recorded_of_are_named(run: PretendedRun, call: Call) -> None:
    """A lost line, a lost line of a checkpoint's own step, and then a lost file; what was rolled back is no gap."""
    run.train(0, 8, save=(2, 6, 7))
    run.train(6, 9, save=(9,))
    first = run.run.events / "0001-trainer.jsonl"
    kept = [line for line in first.read_text().splitlines(True) if re.search('"step": [01356],', line)]
    first.write_text("".join(kept))
    done = call("proof", NAME)
    assert done.returncode == 0
    assert "no record of 2 steps of the run, which could not be compared: 2, 4. The hash of a later" in done.stdout
    assert re.search("step-0000000007 +56 +not computed: launch 0001 has no record of so many samples", done.stdout)
    first.unlink()
    told = json.loads(call("proof", NAME, "--json").stdout)
    assert told["without_record"] == [{"first": 1, "last": 6}]
    assert [each["equal"] for each in told["checkpoints"]] == [None, None, None, True]
    assert told["checkpoints"][0]["not_computed"] == "launch 0001 cannot be looked at, or has no record"
    within = json.loads(call("proof", NAME, "--json", "--steps", "3:9").stdout)
    assert within["without_record"] == [{"first": 3, "last": 6}]


def test_steps_out_of_their_order_and_twice(run: PretendedRun, call: Call) -> None:
    """The first step that differs is the lowest, and what is told of it is of the line that differs."""
    run.train(0, 4)
    path = run.run.events / "0001-trainer.jsonl"
    start, *steps, end = path.read_text().splitlines(keepends=True)
    other = [re.sub('(?<="delivered": ")[0-9a-f]*', "0" * 16, line) for line in steps]
    none = [line.replace("0" * 16, "none") for line in other]
    path.write_text("".join([start, *reversed(steps), other[3], other[1], none[1], end]))
    [found] = json.loads(call("proof", NAME, "--json").stdout)["launches"]
    assert (found["first_step"], found["last_step"], found["differing"]) == (1, 4, [2, 4])
    assert (found["first_difference"]["step"], found["first_difference"]["recorded"]) == (2, "0" * 16)


def launch(name: str, begins: int, *steps: int) -> LaunchSteps:
    there = np.array(steps, dtype=np.int64)
    return LaunchSteps(name, begins, {}, None, there, there, there, there.astype(np.uint64), there > 0)


@pytest.mark.parametrize(
    ("launches", "expected"),
    [
        ([], []),
        ([launch("1", 0)], []),
        ([launch("1", 0, 1, 2, 3)], []),
        ([launch("1", 0, 1, 3), launch("2", 3)], [(2, 2)]),
        ([launch("1", 0, 1, 2), launch("2", 4, 5, 6)], [(3, 4)]),
        ([launch("1", 0, 1, 2, 4, 5), launch("2", 2), launch("3", 2, 3)], []),
        ([launch("1", 0, 1, 2), launch("2", 9), launch("3", 1, 2)], []),
        ([launch("1", 10**10 - 1)], [(1, 10**10 - 1)]),
    ],
)
def test_gaps_of_a_record(launches: list[LaunchSteps], expected: list[tuple[int, int]]) -> None:
    assert gaps(launches) == expected


def test_hashes_of_another_formula_are_not_compared(run: PretendedRun, call: Call) -> None:
    run.train(0, 2)
    path = run.run.events / "0001-trainer.jsonl"
    path.write_text(path.read_text().replace('"delivered_version": 1', '"delivered_version": 2'))
    done = call("proof", NAME)
    assert done.returncode == 2
    assert (
        "launch 0001: steps 1 to 2 have no hash that can be compared: recorded by a version with another" in done.stdout
    )
    assert done.stderr == f"error: {NAME}: no step has a hash on record: it was trained by an earlier version\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0:4"], "--steps takes FROM:TO, not 0:4"),
        (["--steps", "4:4"], "--steps takes FROM:TO, not 4:4"),
        (["--steps", "4"], "--steps takes FROM:TO, not 4"),
        (["--steps", "50:60"], "no step is on record within steps 50:60"),
    ],
)
def test_what_cannot_be_looked_at(run: PretendedRun, call: Call, words: list[str], message: str) -> None:
    run.train(0, 2)
    done = call("proof", NAME, *words)
    assert done.returncode == 2 and message in done.stderr


def test_data_and_records_that_are_gone(run: PretendedRun, call: Call, tmp_path: Path) -> None:
    run.train(0, 2, save=(2,))
    run.train(2, 4)
    config = run.run.launches / "0002" / "config.yaml"
    config.write_text(config.read_text().replace("sequence_length", "length_of_sequences"))
    done = call("proof", NAME)
    assert done.returncode == 2
    assert re.search("launch 0001 +1 to 2 .* equal\nlaunch 0002 .* cannot be looked at\n", done.stdout)
    (tmp_path / "b.bin").unlink()
    assert call("proof", NAME).returncode == 2
    events = run.run.events / "0001-trainer.jsonl"
    events.write_text(events.read_text().replace('"batch_size": 8', '"batch_size": 9', 1))
    assert "step 1 of launch 0001 does not say how many samples it is of" in call("proof", NAME).stderr


@pytest.mark.parametrize(("samples", "batch"), [(2**52, 8), (2**52, 2**52), (800, 800)])
def test_more_samples_than_a_launch_can_have_read(run: PretendedRun, call: Call, samples: int, batch: int) -> None:
    """Nothing is read for them, and no memory is asked for."""
    run.train(0, 2)
    events = run.run.events / "0001-trainer.jsonl"
    changed = rf'"samples": {samples}\1"batch_size": {batch}'
    events.write_text(re.sub(r'"samples": 16(.*)"batch_size": 8', changed, events.read_text()))
    done = call("proof", NAME)
    assert done.returncode == 2 and "launch 0001 has a step of " in done.stdout
    assert "in all at most. Restore both files" in call("text", NAME, "--step", 2).stderr


def test_a_checkpoint_that_says_more_of_itself_than_its_launch_read(run: PretendedRun, call: Call) -> None:
    run.train(0, 2, save=(2,))
    folder = run.run.checkpoints / "step-0000000002"
    old = read_manifest(folder / "manifest.json")
    facts = {**old.facts, "samples": 2**52, FACT: Delivered(1, 2**52).as_fact()}
    write_manifest(folder / "manifest.json", build_manifest(old.kind, old.files, facts, old.parents, "by a test"))
    assert re.search("step-0000000002 +4,503,599,627,370,496 +not computed", call("proof", NAME).stdout)


def test_the_text_of_a_step(run: PretendedRun, call: Call, tmp_path: Path) -> None:
    run.train(0, 4, Layout(2, 1, 2), micro_batch=2)
    done = [json.loads(line) for line in call("text", NAME, "--step", 2, "--json").stdout.splitlines()]
    assert [each["place"] for each in done] == list(range(8, 16))
    assert [(each["data_rank"], each["micro_batch"]) for each in done] == [
        (0, 0), (0, 0), (1, 0), (1, 0), (0, 1), (0, 1), (1, 1), (1, 1)
    ]  # fmt: skip
    for each in done:
        opened = IndexedDataset(tmp_path / each["source"])
        start = each["number"] * 16
        assert each["dataset"] == str(tmp_path / each["source"])
        assert each["tokens"] == opened.tokens[start : start + 17].tolist()
        [(first, last)] = each["documents"]
        offsets = [opened.document_token_offset(document) for document in range(opened.number_of_documents + 1)]
        assert offsets[first] <= start < offsets[first + 1] and offsets[last] < start + 17 <= offsets[last + 1]
    rank_2 = [json.loads(line) for line in call("text", NAME, "--step", 2, "--rank", 2, "--json").stdout.splitlines()]
    assert rank_2 == [each for each in done if each["data_rank"] == 1]
    shown = call("text", NAME, "--step", 2, "--tokens", 3).stdout.splitlines()
    assert shown[0] == "step 2, trained by launch 0001: 8 samples after 8 others"
    number, source = done[0]["number"], done[0]["source"]
    assert shown[1].startswith(f"{number}: sample of source {source} at place 8, document")
    assert shown[1].endswith(f" of {tmp_path / source} (data rank 0, micro-batch 0)")
    assert all(line.startswith("  | ") or ": sample of source" in line for line in shown[1:])


@pytest.mark.parametrize(
    "data",
    [
        {"samples": {"name": "packs", "longer": "drop"}},
        {"samples": {"name": "windows"}},
        {"split": "3,1", "split_by": "document_hash"},
    ],
    ids=str,
)
def test_samples_of_plans(run: PretendedRun, call: Call, tmp_path: Path, data: dict[str, object]) -> None:
    """The tokens that are shown lie in the documents that are named, and the proof knows how they are cut."""
    section = type(run.config.data).model_validate({**run.config.data.model_dump(), **data})
    changed = {name: getattr(section, name) for name in data}
    run.train(0, 3, save=(3,), **changed)
    assert json.loads(call("proof", NAME, "--json").stdout)["equal"]
    several = 0
    for step in (1, 2, 3):
        for line in call("text", NAME, "--step", step, "--json").stdout.splitlines():
            each = json.loads(line)
            opened = IndexedDataset(tmp_path / each["source"])
            offsets = [
                [opened.document_token_offset(at) for at in (first, last + 1)] for first, last in each["documents"]
            ]
            there = np.concatenate([opened.tokens[first:end] for first, end in offsets]).tolist()
            count = len(each["tokens"])
            assert count and any(there[at : at + count] == each["tokens"] for at in range(len(there) - count + 1))
            several += len(each["documents"]) > 1
    assert several > 0 or data == {"samples": {"name": "windows"}}, "a window is of one document"
    for token in range(0, len(IndexedDataset(tmp_path / "a").tokens), 2):
        change_token(tmp_path / "a", token, 299)
    assert not json.loads(call("proof", NAME, "--json").stdout)["equal"]


def test_the_text_of_a_step_that_was_trained_twice_or_rolled_back(run: PretendedRun, call: Call) -> None:
    run.train(0, 6, save=(2, 6))
    run.train(2, 4, skip_samples=[[16, 24]])
    shown = call("text", NAME, "--step", 3)
    assert shown.stdout.startswith("step 3, trained by launch 0002: 8 samples after 16 others") and not shown.stderr
    assert " at place 24, " in shown.stdout
    assert "trained by launch 0001" in call("text", NAME, "--step", 2).stdout
    gone = call("text", NAME, "--step", 5)
    assert (gone.returncode, gone.stderr) == (0, "step 5 of launch 0001, which was rolled back since\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "9"], "has no record of step 9; it has steps 1 to 2"),
        (["--step", "1", "--rank", "4"], "launch 0001 had 4 ranks, numbered from 0: there is no rank 4"),
        (["--step", "1", "--documents", "3"], "--documents is for a dataset, and --step for a run"),
        (["--step", "1", "--sequence-length", "3"], "--sequence-length is for a dataset"),
        (["--rank", "1", "--documents", "3"], "--rank R belongs to --step N of a run"),
        ([], "or --step N of a run"),
    ],
)
def test_text_that_cannot_be_shown(run: PretendedRun, call: Call, words: list[str], message: str) -> None:
    run.train(0, 2, Layout(1, 2, 2))
    done = call("text", NAME, *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_a_rank_of_a_launch_that_did_not_record_its_layout(run: PretendedRun, call: Call) -> None:
    run.train(0, 2)
    writer = EventWriter(run.run.events, "0001", "trainer")
    writer.write("start", step=0, layout="wide")
    writer.close()
    done = call("text", NAME, "--step", 1, "--rank", 0)
    assert done.returncode == 2 and "leave out --rank" in done.stderr
    assert "read by" not in call("text", NAME, "--step", 1).stdout


def test_a_text_cannot_pass_for_ours(run: PretendedRun, call: Call, tmp_path: Path) -> None:
    """A terminal's escape sequences in the tokens of a sample are printed as text."""
    run.train(0, 1)
    [escape] = load_tokenizer(Path(run.config.data.tokenizer)).encode("\x1b")
    tokens = np.memmap(tmp_path / "a.bin", np.uint16, mode="r+")
    tokens[:] = escape
    tokens.flush()
    assert "\x1b" not in call("text", NAME, "--step", 1).stdout
