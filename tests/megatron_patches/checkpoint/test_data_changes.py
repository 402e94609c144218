"""A run whose sources change on the way: neither a stop nor when it was told of the change changes the result."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.recorded_changes import CHANGES
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import launch, plan_run
from tests.command_line import verb
from tests.megatron_patches.checkpoint.test_resume import losses, stored_bytes, train_and_signal
from tests.megatron_patches.checkpoint.test_rollback import planned_launch
from tests.ranks import RankFailed, run_on_ranks
from tests.small_engine import SAME_IN_FP32
from tests.small_training import SmallData, overrides, train_launch
from tools.commands.runs import command_line as runs_commands
from tools.commands.runs.rollback import perform, plan_rollback

NAME, CHILD = "tr900a-28K-small", "tr900b-28K-child"
HERE = LaunchTarget(nodes=None, gpu=False, gpu_models=())
WINDOWS = ["--data.samples={name: windows, overlap: 0.5}"]
PACKS = [
    *overrides(data__samples="packs", data__sequence_length=96),
    *overrides(objective__reset_attention="true", objective__reset_positions="true"),
]
LAST = "step-0000000008"


class Turn(NamedTuple):
    """A launch."""

    words: Sequence[str]
    stop: int | None = None
    """its step, from 1, in which it is asked to stop; it stops after the one behind it. None: it goes on to the end"""
    rehearse: int | None = None
    run: str = NAME


class Back(NamedTuple):
    """A rollback."""

    to: str
    skip: Sequence[str] = ()


def source(name: str, weight: float = 1, **more: str) -> dict[str, Any]:
    """One of the small datasets, named before a dot; `$DATA` is their folder."""
    return {"name": name, "weight": weight, "path": f"$DATA/{name.partition('.')[0]}", **more}


BLEND = [source("text", 3), source("more")]


def change(step: int, *sources: dict[str, Any]) -> dict[str, Any]:
    return {"from_step": step, "sources": sources}


AT_4, AT_6 = (change(step, source("more", 2), source("pairs")) for step in (4, 6))


def settings(kind: Sequence[str], *changes: dict[str, Any], sources: Sequence[dict[str, Any]] = BLEND) -> list[str]:
    """A run over two sources, with changes of them."""
    return [
        *kind,
        *overrides(data__path="null", data__split="100", data__max_epochs=9, evaluation="null"),
        f"--data.sources={json.dumps(sources)}",
        f"--data.changes={json.dumps(changes)}",
    ]


WORDS = settings(WINDOWS, AT_4)
PLAIN = settings(WINDOWS)
# what a batch that grows, samples left out, another change after a rollback and an extension come to
RAMP = overrides(training__batch_ramp="{start: 4, increment: 4, samples: 12}")
HALVES = [change(5, source("more"), source("pairs", range=half)) for half in ("0:0.5", "0.5:1")]
LONGER = [*RAMP, *overrides(training__extend_to=10)]
LATE = change(8, source("text"), source("pairs", range="0.5:1"))
WINDING: list[Turn | Back] = [
    Turn([*settings(PACKS, HALVES[0]), *RAMP]),
    Back("3", ["22:26"]),
    Turn([*settings(PACKS, HALVES[1]), *RAMP]),
    Turn([*settings(PACKS, HALVES[1], LATE), *LONGER]),
]
COURSES: dict[str, list[Turn | Back]] = {
    "windows": [Turn(WORDS)],
    "windows, stopped": [Turn(WORDS, 2), Turn(WORDS, 1), Turn(WORDS)],
    "windows, told at the change": [Turn(PLAIN, 3), Turn(WORDS)],
    "windows, change at 6": [Turn(settings(WINDOWS, AT_6))],
    "windows, told before the change": [Turn(PLAIN, 3), Turn(settings(WINDOWS, AT_6))],
    "packs": [Turn(settings(PACKS, AT_4))],
    "packs, stopped": [Turn(settings(PACKS, AT_4), stop) for stop in (1, 1, None)],
    "winding": WINDING,
    "winding, told at first": [Turn([*settings(PACKS, HALVES[1], LATE), *LONGER, "--data.skip_samples=[[22, 26]]"])],
    "rehearsal and child": [
        Turn(WORDS, 3),
        Turn(WORDS, rehearse=4),
        Turn([*settings(WINDOWS), f"--init_from={NAME}@4"], 1, run=CHILD),
    ],
}


def take_turns(courses: dict[str, list[Turn | Back]], folder: str) -> None:
    """On one rank: each course in a folder for its runs."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at
    for name, turns in courses.items():
        os.environ["TRAINYARD_RUNS"] = str(Path(folder) / name)
        for turn in turns:
            if isinstance(turn, Back):
                perform(plan_rollback(RunFolder(Path(folder) / name / NAME), turn.to, turn.skip, []), "to try it")
                continue
            steps = iter(range(1, 1000))

            def read_and_signal(
                self: TrainingBatches, consumed_samples: int, stop: int | None = turn.stop, steps: Any = steps
            ) -> Any:
                if next(steps) == stop:
                    os.kill(os.getpid(), signal.SIGUSR1)
                return read(self, consumed_samples)

            TrainingBatches.at = read_and_signal  # type: ignore[method-assign]
            plan = plan_run(Path(folder) / f"tr900-tests/{turn.run}.yaml", turn.words, HERE, turn.rehearse)
            train_launch(launch(plan)["launch_directory"])


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all courses and of the YAML of their runs."""
    folder = tmp_path_factory.mktemp("courses")
    for name in (NAME, CHILD):
        small_data.write(folder / "tr900-tests", name)
    run_on_ranks(take_turns, 1, with_data(COURSES, small_data), str(folder))
    return folder


def with_data(courses: Any, data: SmallData) -> Any:
    """The same with the folder of the data in place of `$DATA`."""
    if isinstance(courses, str):
        return courses.replace("$DATA", str(data.folder))
    if isinstance(courses, dict):
        return {name: with_data(each, data) for name, each in courses.items()}
    if isinstance(courses, Turn | Back):
        return type(courses)(*(with_data(each, data) for each in courses))
    return [with_data(each, data) for each in courses] if isinstance(courses, list | tuple) else courses


def run_of(folder: Path, course: str, name: str = NAME) -> RunFolder:
    return RunFolder(folder / course / name)


def delivered(run: RunFolder) -> list[str]:
    return [event.facts["delivered"] for event in effective(read_events(run.events), "step")]


def starts(run: RunFolder) -> list[int]:
    return [event.facts["step"] for event in read_events(run.events, ("start",))]


@pytest.mark.parametrize(
    ("course", "like", "began", "last"),
    [
        ("windows, stopped", "windows", [0, 3, 5], LAST),
        ("packs, stopped", "packs", [0, 2, 4], LAST),
        ("windows, told at the change", "windows", [0, 4], LAST),
        ("windows, told before the change", "windows, change at 6", [0, 4], LAST),
        ("winding", "winding, told at first", [0, 3, 3, 8], "step-0000000010"),
    ],
)
def test_the_result_is_that_of_a_run_told_at_first_and_not_stopped(
    trained: Path, course: str, like: str, began: list[int], last: str
) -> None:
    run, expected = run_of(trained, course), run_of(trained, like)
    assert (starts(run), starts(expected)) == (began, [0])
    assert losses(run) == losses(expected)
    assert delivered(run) == delivered(expected)
    assert stored_bytes(run.checkpoints / last) == stored_bytes(expected.checkpoints / last)


def test_a_change_takes_effect_after_its_step(trained: Path) -> None:
    at_4, at_6 = (delivered(run_of(trained, course)) for course in ("windows", "windows, change at 6"))
    assert at_4[:4] == at_6[:4] and not set(at_4[4:]) & set(at_6[4:])


def test_a_change_that_was_told_later_is_on_record(
    trained: Path, small_data: SmallData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more, pairs = (f"({small_data.folder}/{name})" for name in ("more", "pairs"))
    for course, step in (("windows, told at the change", 4), ("windows, told before the change", 6)):
        run = run_of(trained, course)
        told = f"after step {step}: more 0.666667 {more}, pairs 0.333333 {pairs}"
        record = {"step": 4, "key": "data.changes", "before": [], "now": [told]}
        assert [event.facts for event in read_events(run.events, ("change",))] == [record]
        assert read_manifest(run.checkpoints / LAST / "manifest.json").facts[CHANGES] == [record]
        assert f"changed since step-0000000004: data.changes none -> {told}" in (run.logs / "0002.log").read_text()
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained / "windows, told at the change"))
    monkeypatch.setenv("COLUMNS", "400")
    words = with_data(WORDS, small_data)
    done = verb(runs_commands, monkeypatch, capsys)("show", trained / f"tr900-tests/{NAME}.yaml", *words)
    assert (
        done.stdout.count("after step 4: more 0.666667 (") == 2 and "data changes     after step 4: more" in done.stdout
    )
    assert "text 75.0%, more 25.0%, pairs later" in done.stdout


REPLACED = {
    "weights": (settings(WINDOWS, AT_4, sources=[source("text"), source("more")]), "the weights of data.sources"),
    "order of sources": (settings(WINDOWS, AT_4, sources=BLEND[::-1]), "now, in this order"),
    "range": (settings(WINDOWS, AT_4, sources=[source("text", 3, range="0:0.9"), BLEND[1]]), "source text is "),
    "path to other bytes": (
        settings(WINDOWS, AT_4, sources=[BLEND[0], {**BLEND[1], "path": "$DATA/pairs"}]), "source more"
    ),
    "split_by": ([*WORDS, "--data.split_by=document_hash"], "data.split_by is file_order"),
    "kind": ([*WORDS, "--data.samples={name: windows, overlap: 0.25}"], "data.samples.overlap is 0.5"),
    "seed": ([*WORDS, "--training.seed=8"], "training.seed is 7"),
    "change behind": (settings(WINDOWS, change(3, source("text"))), "data.changes from step 3 on is another"),
}  # fmt: skip


@pytest.mark.parametrize("case", REPLACED)
def test_what_was_read_cannot_be_said_otherwise(
    trained: Path, small_data: SmallData, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Of a run that was stopped after step 4, behind which sources change."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained / "rehearsal and child"))
    words, told = REPLACED[case]
    with pytest.raises(TrainyardError, match=told):
        plan_run(trained / f"tr900-tests/{NAME}.yaml", with_data(words, small_data), HERE)


def test_a_dataset_may_lie_somewhere_else(
    trained: Path, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(trained / "rehearsal and child"))
    shutil.copytree(small_data.folder, tmp_path / "moved")
    plan = plan_run(trained / f"tr900-tests/{NAME}.yaml", with_data(WORDS, SmallData(tmp_path / "moved")), HERE)
    assert plan.continuation is not None and plan.continuation.taken.step == 4


def test_a_rehearsal_and_a_child_of_a_run_over_a_blend(trained: Path) -> None:
    rehearsal = run_of(trained, "rehearsal and child", f"{NAME}-rehearsal-1")
    parent, child = (run_of(trained, "rehearsal and child", name) for name in (NAME, CHILD))
    assert len(losses(rehearsal)) == 4
    assert delivered(rehearsal)[:2] == delivered(parent)[:2] and delivered(rehearsal)[2] != delivered(parent)[2]
    assert delivered(child) == delivered(parent)[:2], "its order of data is its own, from the first sample on"
    assert losses(child)[1] < losses(parent)[3]


LAYOUTS = {
    "TP2 PP2": ("packs", [*settings(PACKS, AT_4), *overrides(parallel__tensor=2, parallel__pipeline=2)]),
    "DP2": ("windows", [*WORDS, *overrides(parallel__local_processes=2, parallel__zero_stage=1)]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_read_the_same_and_find_the_same(
    layout: str, trained: Path, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle, and resumed."""
    course, words = LAYOUTS[layout]
    for stop in (2, 1000):
        path = trained / f"tr900-tests/{NAME}.yaml"
        folder, ranks, _ = planned_launch(path, tmp_path, with_data(words, small_data), monkeypatch)
        run_on_ranks(train_and_signal, ranks, folder, stop, signal.SIGUSR1, ranks - 1)
    run, alone = RunFolder(tmp_path / NAME), run_of(trained, course)
    assert starts(run) == [0, 3]
    assert delivered(run) == delivered(alone)
    assert losses(run) == pytest.approx(losses(alone), rel=SAME_IN_FP32)


def test_a_resume_that_falls_back_compares_the_data_of_what_it_takes(
    trained: Path, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the newest checkpoint the configuration is damaged, which no size shows; the one before is of step 3."""
    shutil.copytree(run_of(trained, "rehearsal and child").path, tmp_path / NAME)
    damaged = tmp_path / NAME / "checkpoints/step-0000000004/config.yaml"
    damaged.write_bytes(b"- " + damaged.read_bytes()[2:])
    words = with_data(settings(WINDOWS, change(2, source("text"))), small_data)
    folder, ranks, _ = planned_launch(trained / f"tr900-tests/{NAME}.yaml", tmp_path, words, monkeypatch)
    with pytest.raises(RankFailed, match=r"data\.changes from step 2 on is another than in .*step-0000000003"):
        run_on_ranks(train_launch, ranks, folder)


def test_a_group_without_a_target_is_named_before_the_first_step(
    trained: Path, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "short.jsonl").write_text("\n".join([json.dumps({"text": "a"})] * 8))
    preprocess(PreprocessRequest([tmp_path / "short.jsonl"], tmp_path / "short", small_data.folder / "tokenizer"))
    group = json.dumps([{"name": "short", "path": f"{tmp_path}/short"}])
    more = [f"--data.validation={group}", "--evaluation={every_steps: 8, samples: 2}"]
    words = [*with_data(PLAIN, small_data), *more]
    folder, ranks, _ = planned_launch(trained / f"tr900-tests/{NAME}.yaml", tmp_path / "runs", words, monkeypatch)
    with pytest.raises(RankFailed, match="validation group short: none of its first 2 samples has a token to be"):
        run_on_ranks(train_launch, ranks, folder)
    assert losses(RunFolder(tmp_path / "runs" / NAME)) == {}
