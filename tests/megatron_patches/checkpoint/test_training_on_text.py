"""A run that is trained straight from text: stopped and resumed, on other ranks, validated, and proved."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.run_directory import Launch, start_launch
from tests.command_line import verb
from tests.ranks import run_on_ranks
from tests.small_engine import SAME_IN_FP32
from tests.small_training import SmallData, train_launch
from tests.whole_state import same_state
from tools.commands.dataset import command_line as dataset
from tools.run_views.recorded_data import read_recorded_data

NAME = "tr900a-28K-small"
KEPT, LAST = "step-0000000003", "step-0000000008"
HERE = LaunchTarget(nodes=None, gpu=False, gpu_models=())


class Trained(NamedTuple):
    """Folders of the same run, trained in three ways."""

    raw: Path
    straight: RunFolder
    resumed: RunFolder
    """from step 3"""
    on_two: RunFolder
    """from step 3, on two data-parallel ranks"""
    path: Path
    words: list[str]


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("text")
    texts = [path.read_text() for path in sorted((small_data.folder / "documents").iterdir())]
    (folder / "raw.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    path = small_data.write(folder / "tr900-tests", NAME)
    sources = [
        {"name": "raw", "weight": 2, "text": {"path": str(folder / "raw.jsonl"), "shuffle_documents": 3}},
        {"name": "more", "path": str(small_data.folder / "more")},
    ]
    words = ["--data.path=null", f"--data.sources={json.dumps(sources)}", "--data.split=8,2"]
    straight, resumed = (planned(folder / each, path, words) for each in ("straight", "resumed"))
    on_two = planned(folder / "two", path, [*words, "--parallel.local_processes=2"])
    later = [{"from_step": 8, "sources": [{"name": "later", "path": str(small_data.folder / "text")}]}]
    further = [*words, f"--data.changes={json.dumps(later)}", "--training.extend_to=10"]
    run_on_ranks(train_and_resume, 1, str(straight.directory), str(resumed.directory), path, further)
    copy_kept(straight, on_two)
    run_on_ranks(train_launch, 2, str(on_two.directory), {"TRAINYARD_RUNS": str(folder / "two")})
    return Trained(folder / "raw.jsonl", straight.run, resumed.run, on_two.run, path, words)


def planned(runs: Path, path: Path, words: Sequence[str]) -> Launch:
    """A launch that is checked, and not started."""
    before = os.environ.get("TRAINYARD_RUNS")
    os.environ["TRAINYARD_RUNS"] = str(runs)
    try:
        return start_launch(plan_run(path, words, HERE).config)
    finally:
        os.environ.pop("TRAINYARD_RUNS")
        if before is not None:
            os.environ["TRAINYARD_RUNS"] = before


def train_and_resume(straight: str, resumed: str, path: Path, further: list[str]) -> None:
    """The whole run; the same from its checkpoint of step 3 on, and then further on another source."""
    train_launch(straight, {"TRAINYARD_RUNS": str(Path(straight).parents[2])})
    copy_kept(Launch(Path(straight)), Launch(Path(resumed)))
    runs = Path(resumed).parents[2]
    train_launch(resumed, {"TRAINYARD_RUNS": str(runs)})
    train_launch(str(planned(runs, path, further).directory), {"TRAINYARD_RUNS": str(runs)})


def copy_kept(taken: Launch, given: Launch) -> None:
    given.run.checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.copytree(taken.run.checkpoints / KEPT, given.run.checkpoints / KEPT)


def steps(run: RunFolder) -> list[dict[str, Any]]:
    return [event.facts for event in effective(read_events(run.events), "step")]


def test_a_resumed_run_equals_one_that_was_not_stopped(trained: Trained) -> None:
    assert same_state(trained.straight.checkpoints / LAST, trained.resumed.checkpoints / LAST)
    straight, resumed, on_two = (steps(each) for each in (trained.straight, trained.resumed, trained.on_two))
    resumed = resumed[:5]  # after them it reads another source
    assert [each["step"] for each in resumed] == [each["step"] for each in on_two] == [4, 5, 6, 7, 8]
    for others in (resumed, on_two):
        assert [each["delivered"] for each in others] == [each["delivered"] for each in straight[3:]]
    assert [each["loss"] for each in on_two] == pytest.approx([each["loss"] for each in straight[3:]], rel=SAME_IN_FP32)
    facts = [
        read_manifest(run.checkpoints / LAST / "manifest.json").facts["delivered"]
        for run in (trained.straight, trained.resumed, trained.on_two)
    ]
    assert facts[0] == facts[1] == facts[2]


def test_each_checkpoint_keeps_a_place_near_its_next_sample(trained: Trained) -> None:
    places = [
        json.loads((run.checkpoints / LAST / "trainer.json").read_text())["callbacks"]["streams"]["raw"]
        for run in (trained.straight, trained.resumed, trained.on_two)
    ]
    passed = 43  # two thirds of 8 steps of 8 samples
    assert all(0 < place["samples"] <= passed < place["samples"] + 60 for place in places)
    messages = [event.facts["text"] for event in read_events(trained.resumed.events) if event.kind == "message"]
    assert not [text for text in messages if "read from its beginning" in text]


def test_what_is_validated_on_is_the_same_everywhere(trained: Trained) -> None:
    losses = [
        [event.facts["loss"] for event in effective(read_events(run.events), "validation")]
        for run in (trained.straight, trained.resumed)
    ]
    assert len(losses[0]) == 2 and losses[0] == losses[1][:2]


def test_a_run_goes_from_text_to_a_dataset_and_that_is_on_record(trained: Trained) -> None:
    events = read_events(trained.resumed.events)
    (change,) = [event.facts for event in events if event.kind == "change" and event.facts["key"] == "data.changes"]
    assert "later 1" in str(change["now"])
    assert [each["step"] for each in steps(trained.resumed)][-2:] == [9, 10]


@pytest.mark.parametrize("run", ["straight", "resumed", "on_two"])
def test_the_proof_is_of_text_too(
    trained: Trained, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: RunFolder = getattr(trained, run)
    monkeypatch.setenv("TRAINYARD_RUNS", str(folder.path.parent))
    done = verb(dataset, monkeypatch, capsys)("proof", NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("equal") > 2


def test_a_step_is_shown_as_text(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained.straight.path.parent))
    done = verb(dataset, monkeypatch, capsys)("text", NAME, "--step", "7", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["source"] for row in rows} == {"raw", "more"}
    assert {row["dataset"] for row in rows if row["source"] == "raw"} == {str(trained.raw)}


def test_what_was_read_and_what_will_be_is_told(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained.straight.path.parent))
    done = verb(dataset, monkeypatch, capsys)("plan", str(trained.path), *trained.words)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("raw")]
    assert "about" in row and "shuffled 3 documents at a time; held out: the first 10 documents" in row
    recorded = read_recorded_data(trained.straight.events, [])
    assert recorded is not None
    _, told = next(recorded.describe())
    assert told.startswith("2 sources of 1 dataset and raw text") and f"(text {trained.raw})" in told


def test_a_text_that_was_changed_is_found(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = trained.raw.read_text()
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained.straight.path.parent))
    changed = content.splitlines(keepends=True)
    changed[12] = changed[12].replace("a", "A")  # of the same size
    try:
        trained.raw.write_text("".join(changed))
        done = verb(dataset, monkeypatch, capsys)("proof", NAME)
    finally:
        trained.raw.write_text(content)
    assert done.returncode == 1
    assert "raw" in done.stdout


def test_a_resume_that_would_read_something_else_is_refused(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained.straight.path.parent))
    longer = [*trained.words, "--training.extend_to=12"]
    with pytest.raises(TrainyardError, match=r"source raw: its first 10 documents were held out .* the first 40 are"):
        plan_run(trained.path, [*longer, "--evaluation.samples=40"], HERE)
    with pytest.raises(TrainyardError, match=r"source raw is .*shuffle_documents: 3.* and .*shuffle_documents: 4"):
        plan_run(trained.path, [word.replace('documents": 3', 'documents": 4') for word in longer], HERE)
