"""Tasks of the harness, found and described by their YAML files."""

from pathlib import Path

import pytest

from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.evaluation.tasks import harness_names as names_module
from megatron_patches.evaluation.tasks import harness_task as harness_task_module
from megatron_patches.evaluation.tasks.harness_names import harness_folder, harness_names, nearest_names, read_names
from megatron_patches.evaluation.tasks.harness_task import harness_task, resolve
from megatron_patches.evaluation.tasks.spec import TaskSpec
from megatron_patches.evaluation.tasks.task import HarnessTask, TaskSettings

FILES = {
    "one/one.yaml": "task: one\ntag:\n  - pair\n  - 'other'\ndataset_path: a/b\noutput_type: multiple_choice\n"
    "doc_to_choice: [A, B, C, D]\nprocess_docs: !function functions.read\nmetric_list:\n  - metric: acc\n"
    "metadata:\n  version: 2.0\n",
    "one/functions.py": "def read(): ...\n",
    "two/two.yaml": '"task": "two" # a comment\ninclude: ../one/base\n',
    "one/base": "include: one.yaml\ndataset_path: c/d\n",
    "both.yaml": "group: both\ntask:\n  - one\n  - task: two\n    num_fewshot: 3\nmetadata: {version: 1}\n",
    "outer.yaml": "group: outer\ntask:\n- group: inner\n  task:\n  - one\n- both\n",
    "pair_group.yaml": "group: by_tag\ntask: [pair]\n",
    "round.yaml": "group: round\ntask: [round]\n",
    "text.yaml": "task: text\noutput_type: loglikelihood_rolling\n",
    "fixed.yaml": "task: fixed\nnum_fewshot: 0\noutput_type: multiple_choice\ndoc_to_choice: choices\n",
    "zz/again.yaml": "task: one\ndataset_path: never\n",
    "notes.yaml": "remark: no task\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A harness of a few tasks."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    for module in (names_module, harness_task_module):
        monkeypatch.setattr(module, "harness_folder", lambda: tmp_path)
    return tmp_path


def asked(word: str, **settings: int) -> HarnessTask:
    return harness_task(TaskSpec(word, word), TaskSettings(**settings))


def test_names_are_found_without_the_harness(folder: Path) -> None:
    names = read_names(folder)
    assert set(names.files) == {"one", "two", "both", "outer", "by_tag", "round", "text", "fixed"}
    assert names.files["one"] == folder / "one/one.yaml"
    assert names.tags == {"pair": ["one", "two"], "other": ["one", "two"]}
    assert harness_names()["pair"] == folder / "one/one.yaml"
    assert nearest_names("bot", list(harness_names())) == ["both"]


def test_a_task_is_described_by_its_files(folder: Path) -> None:
    task = asked("two")
    assert (task.version, task.config, [each.name for each in task.data]) == ("2.0", "two", ["c/d"])
    assert task.chance == {"acc": 0.25}
    assert resolve("two").folders == [folder / "one", folder / "two"]


def test_a_group_has_the_tasks_of_its_members(folder: Path) -> None:
    assert [task["task"] for task in resolve("outer").tasks] == ["one", "one", "two"]
    assert [task["task"] for task in resolve("by_tag").tasks] == ["one", "two"]
    task = asked("both")
    assert (task.version, task.chance) == ("1", {"acc": 0.25})
    assert [each.name for each in task.data] == ["a/b", "c/d"]


@pytest.mark.parametrize("file", ["one/one.yaml", "one/base", "one/functions.py", "two/two.yaml", "both.yaml"])
def test_any_changed_file_changes_the_definition(file: str, folder: Path) -> None:
    before = asked("both").definition
    with (folder / file).open("a") as changed:
        changed.write("# changed\n")
    assert asked("both").definition != before


def test_settings_change_the_definition_and_other_files_do_not(folder: Path) -> None:
    before = asked("one").definition
    (folder / "text.yaml").write_text("task: text\n")
    assert asked("one").definition == before
    assert len({before, asked("one", shots=2).definition, asked("one", limit=2).definition}) == 3


def test_a_guess_is_not_known_where_choices_differ(folder: Path) -> None:
    assert asked("fixed").chance == {}
    assert asked("text").chance == {}


def test_shots_that_would_be_passed_over_are_refused(folder: Path) -> None:
    for word in ("fixed", "text"):
        with pytest.raises(Refused, match=f"{word} is asked without solved items; leave out --shots"):
            asked(word, shots=1)
    assert asked("fixed", shots=0).settings.shots == 0


def test_a_tag_has_no_result(folder: Path) -> None:
    with pytest.raises(Refused, match=r"pair is a tag of 2 tasks of the harness, .*: one, two"):
        asked("pair")


def test_damaged_files_are_told(folder: Path) -> None:
    with pytest.raises(Damaged, match="round is a member of itself"):
        asked("round")
    (folder / "one/base").unlink()
    with pytest.raises(Damaged, match=r"one/base cannot be read .*; install the harness again"):
        asked("two")
    (folder / "text.yaml").write_text("task: text\n- a\n")
    with pytest.raises(Damaged, match=r"text\.yaml cannot be read"):
        asked("text")


def test_a_harness_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Missing, match="tasks of the harness need lm-eval, which is not installed: pip install -c"):
        harness_folder()
    with pytest.raises(Missing, match="is not there; install the harness again"):
        read_names(tmp_path / "none")


def test_the_installed_harness_has_the_tasks_that_people_name() -> None:
    names = harness_names()
    assert len(names) > 10_000
    mmlu = resolve("mmlu")
    assert (len(mmlu.tasks), {len(task["doc_to_choice"]) for task in mmlu.tasks}) == (57, {4})
    assert {"hellaswag", "arc_easy", "lambada_openai", "gsm8k", "wikitext", "ai2_arc"} <= set(names)
