"""Tasks made ready: what can be refused is refused, and what decides the numbers is in the definition."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.all_formats import LOCAL_FORMATS
from megatron_patches.evaluation.tasks.prepare import local_task, prepare
from megatron_patches.evaluation.tasks.spec import TaskSpec
from megatron_patches.evaluation.tasks.task import HarnessTask, LossTask, TaskSettings
from tests.megatron_patches.evaluation.tasks.made_up import gsm8k_rows, hellaswag_rows, lines, mmlu_folder, mmlu_rows


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A file of each format, named by the format's word."""
    for word in ("hellaswag", "hellaswag-plain"):
        lines(tmp_path / word, hellaswag_rows()).rename(tmp_path / f"{word}.jsonl")
    for word in ("gsm8k", "gsm8k-chat"):
        lines(tmp_path / f"{word}.jsonl", gsm8k_rows())
    lines(tmp_path / "mmlu.jsonl", mmlu_rows())
    lines(tmp_path / "perplexity.jsonl", [{"text": "one two"}, {"text": "three"}])
    mmlu_folder(tmp_path / "folder", {"test": 2, "dev": 1})
    return tmp_path


def spec_of(word: str, files: Path, name: str | None = None) -> TaskSpec:
    return TaskSpec(name or word, word, None if word == "arithmetic" else str(files / f"{word}.jsonl"))


def ready(word: str, files: Path, **settings: int) -> HarnessTask:
    task = prepare(spec_of(word, files), TaskSettings(**settings))
    assert isinstance(task, HarnessTask)
    return task


PINNED = {
    "hellaswag": "4a60d16193fd5cf4",
    "hellaswag-plain": "0ba68d4780f77a0b",
    "mmlu": "ea20e5b277ecd091",
    "gsm8k": "5ad83c7390e32285",
    "gsm8k-chat": "b7f08f9457cf718d",
    "arithmetic": "980d960b183b3f3b",
    "perplexity": "0bc32e7e5290e8de",
}
"""Beginnings of definitions. Another one means that the same files give a model other numbers than before: raise the
format's version, and write the new one here."""


@pytest.mark.parametrize("word", LOCAL_FORMATS)
def test_definitions_are_what_they_were(word: str, files: Path) -> None:
    task = ready(word, files)
    assert (task.version, task.definition[:16]) == ("1.0", PINNED[word])


def test_names_and_places_of_files_are_no_part_of_a_definition(files: Path) -> None:
    moved = files / "elsewhere"
    moved.mkdir()
    for word in ("hellaswag", "mmlu"):
        (files / f"{word}.jsonl").rename(moved / f"{word}.jsonl")
        task = prepare(spec_of(word, moved, "other"), TaskSettings())
        assert isinstance(task, HarnessTask)
        assert (task.label, task.definition[:16]) == ("other", PINNED[word])


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "prompt": lambda row: {**row, "ctx_a": row["ctx_a"] + "!"},
    "answer": lambda row: {**row, "label": 3},
    "cluster": lambda row: {**row, "source_id": "a"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_row_changes_the_definition(change: str, files: Path) -> None:
    before = ready("hellaswag", files).definition
    lines(files / "hellaswag.jsonl", [CHANGES[change](row) for row in hellaswag_rows()])
    assert ready("hellaswag", files).definition != before


def test_settings_and_the_version_change_the_definition(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [{}, {"limit": 2}, {"length": 128}]
    found = {ready("gsm8k", files, **settings).definition for settings in kinds}
    newer = replace(LOCAL_FORMATS["gsm8k"], version="1.1")
    monkeypatch.setitem(LOCAL_FORMATS, "gsm8k", newer)
    found.add(ready("gsm8k", files).definition)
    assert len(found) == 4


def test_solved_items_count_only_as_far_as_they_are_shown(files: Path) -> None:
    folder = TaskSpec("m", "mmlu", str(files / "folder"))
    tasks = [prepare(folder, TaskSettings(shots=shots)) for shots in (None, 0, 1)]
    first, none, one = [task.definition for task in tasks if isinstance(task, HarnessTask)]
    assert first == none != one
    solved = files / "folder/dev/anatomy_dev.csv"
    solved.write_text(f"{solved.read_text()}one more,w,x,y,z,A\n")
    more = prepare(folder, TaskSettings(shots=1))
    assert isinstance(more, HarnessTask) and more.definition == one
    solved.write_text("other,w,x,y,z,A\n")
    again = [prepare(folder, TaskSettings(shots=shots)) for shots in (None, 1)]
    assert [task.definition == before for task, before in zip(again, (first, one), strict=True)] == [True, False]


def test_solved_items_come_from_the_file_behind_the_plus(files: Path) -> None:
    (files / "gsm8k.jsonl").rename(files / "a+b.jsonl")
    lines(files / "solved+1.jsonl", gsm8k_rows(2))
    spec = TaskSpec("g", "gsm8k", f"{files}/a+b.jsonl+{files}/solved+1.jsonl")
    task = local_task(spec, TaskSettings(shots=2))
    assert {split: len(documents) for split, documents in task.splits("g").items()} == {"test": 3, "examples": 2}
    assert task.member("g")["num_fewshot"] == 2
    assert [Path(each.name).name for each in task.source.data] == ["a+b.jsonl", "solved+1.jsonl"]
    assert local_task(TaskSpec("g", "gsm8k", f"{files}/a+b.jsonl"), TaskSettings()).shots == 0


def test_what_shots_cannot_do_is_refused(files: Path) -> None:
    twice = f"{files}/gsm8k.jsonl+{files}/gsm8k.jsonl"
    for spec, shots, message in (
        (TaskSpec("g", "gsm8k", twice), 4, r"--shots 4 needs as many solved items, and there are 3"),
        (TaskSpec("g", "gsm8k", twice), None, "nothing says how many solved items to show; add --shots"),
        (TaskSpec("m", "mmlu", f"{files}/folder"), 2, r"solved items of abstract_algebra, and there are 1; .* in dev/"),
        (spec_of("gsm8k", files), 1, "as in gsm8k:FILE\\+EXAMPLES"),
        (spec_of("perplexity", files), 1, "perplexity is asked without solved items; leave out --shots"),
        (spec_of("arithmetic", files), 1, "arithmetic is asked without solved items; leave out --shots"),
        (TaskSpec("c", "gsm8k-chat", twice), None, r"gsm8k-chat is asked without solved items; leave out \+"),
        (TaskSpec("validation", "validation"), 1, "leave out --shots"),
    ):
        with pytest.raises(Refused, match=message):
            prepare(spec, TaskSettings(shots=shots))


def test_settings_out_of_range_are_refused(files: Path) -> None:
    for settings, message in (
        (TaskSettings(shots=-1), "--shots -1: give at least 0"),
        (TaskSettings(limit=0), "--limit 0: give at least 1"),
        (TaskSettings(length=1), "--length 1: give at least 2"),
    ):
        with pytest.raises(Refused, match=message):
            prepare(spec_of("gsm8k", files), settings)


def test_files_that_are_not_there_are_told(files: Path) -> None:
    with pytest.raises(Missing, match=r"gsm8k: .*none\.jsonl does not exist"):
        prepare(TaskSpec("gsm8k", "gsm8k", f"{files}/none.jsonl"), TaskSettings())
    with pytest.raises(Missing, match=r"x: .*solved\.jsonl does not exist"):
        prepare(TaskSpec("x", "gsm8k", f"{files}/gsm8k.jsonl+{files}/solved.jsonl"), TaskSettings(shots=1))


def test_losses_are_of_groups_or_of_a_dataset_that_is_there(tmp_path: Path) -> None:
    assert prepare(TaskSpec("v", "validation"), TaskSettings(limit=3)) == LossTask("v", TaskSettings(limit=3))
    assert prepare(TaskSpec("w", "validation", "web"), TaskSettings()) == LossTask("w", TaskSettings(), None, ("web",))
    spec = TaskSpec("d", "dataset", str(tmp_path / "text"))
    (tmp_path / "text.bin").touch()
    with pytest.raises(Missing, match=r"text\.idx does not exist; name a dataset by its files without \.bin and \.idx"):
        prepare(spec, TaskSettings())
    (tmp_path / "text.idx").touch()
    assert prepare(spec, TaskSettings()) == LossTask("d", TaskSettings(), str(tmp_path / "text"))


def test_a_group_has_its_subjects_as_members(files: Path) -> None:
    task = ready("mmlu", files, limit=1)
    assert not isinstance(task.config, str)
    assert [member["task"] for member in task.config["task"]] == ["mmlu_anatomy", "mmlu_law"]
    assert (task.label, task.chance, task.by_token) == ("mmlu.limit-1", {"acc": 0.25}, False)
    document = local_task(spec_of("mmlu", files), TaskSettings()).splits("mmlu_law")["test"][0]
    assert (task.part_of(document), task.cluster_of(document)) == ("law", "law")


def test_a_wrong_row_names_the_file(files: Path) -> None:
    lines(files / "gsm8k.jsonl", [{"question": "a"}])
    with pytest.raises(TrainyardError, match=r"gsm8k\.jsonl, line 1: no key 'answer', only question"):
        prepare(spec_of("gsm8k", files), TaskSettings())
