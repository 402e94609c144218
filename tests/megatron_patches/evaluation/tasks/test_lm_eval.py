"""lm-eval makes of our tasks what it makes of its own: the same prompts, choices, answers and metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.harness_names import harness_folder
from megatron_patches.evaluation.tasks.loading import load
from megatron_patches.evaluation.tasks.prepare import local_task, prepare
from megatron_patches.evaluation.tasks.spec import TaskSpec
from megatron_patches.evaluation.tasks.task import HarnessTask, TaskSettings
from megatron_patches.evaluation.tasks.written_folder import write_tasks
from tests.megatron_patches.evaluation.tasks.made_up import gsm8k_rows, hellaswag_rows, lines, mmlu_folder, mmlu_rows

Asked = list[tuple[Any, ...]]


def ours(spec: TaskSpec, shots: int | None = None) -> dict[str, Any]:
    task = prepare(spec, TaskSettings(shots=shots))
    assert isinstance(task, HarnessTask)
    return load(task)


def its_own(file: str, splits: Mapping[str, list[dict[str, Any]]], **changes: Any) -> Any:
    """A task of the harness that is given rows in place of its dataset."""
    config = load_yaml(harness_folder() / file)
    config.pop("tag", None)
    data = {split: datasets.Dataset.from_list(rows) for split, rows in splits.items()}
    return ConfigurableTask(config={**config, **changes, "custom_dataset": lambda **_: data})


def requests_of(task: Any, shots: int = 0) -> Asked:
    """What a model is asked for each item."""
    task.set_fewshot_seed(1234)
    found: Asked = []
    for number, document in enumerate(task.eval_docs):
        made = task.construct_requests(document, task.fewshot_context(document, shots), metadata=("", number, 1))
        found += [request.args for request in (made if isinstance(made, list) else [made])]
    return found


def test_hellaswag_is_asked_and_scored_as_by_the_harness(tmp_path: Path) -> None:
    rows = [{**row, "label": str(row["label"])} for row in hellaswag_rows(6)]
    (task,) = ours(TaskSpec("h", "hellaswag", str(lines(tmp_path / "h.jsonl", rows))))["tasks"].values()
    own = its_own("hellaswag/hellaswag.yaml", {"train": rows, "validation": rows})
    assert requests_of(task) == requests_of(own)
    scores = [(-3.0, False), (-1.0, False), (-2.9, True), (-2.0, False)]
    for mine, its in zip(task.eval_docs, own.eval_docs, strict=True):
        assert task.process_results(mine, scores) == own.process_results(its, scores)
    assert set(task.aggregation()) == {"acc", "acc_norm"}


@pytest.mark.parametrize("shots", [0, 2])
def test_mmlu_is_asked_as_by_the_harness(tmp_path: Path, shots: int) -> None:
    folder = mmlu_folder(tmp_path, {"test": 3, "dev": 2})
    loaded = ours(TaskSpec("m", "mmlu", str(folder)), shots or None)
    rows = {
        split: [
            {"question": f"abstract_algebra {split} {n}, is it?", "choices": ["w", "x", 'y "z"', "z"], "answer": n % 4}
            for n in range(count)
        ]
        for split, count in (("test", 3), ("dev", 2))
    }
    own = its_own("mmlu/default/mmlu_abstract_algebra.yaml", rows)
    assert requests_of(loaded["tasks"]["m_abstract_algebra"], shots) == requests_of(own, shots)
    assert own.config.metadata["version"] == 1.0


def test_members_of_a_group_are_weighted_by_their_size(tmp_path: Path) -> None:
    rows = [*mmlu_rows(["law"], 3), *mmlu_rows(["anatomy"], 1)]
    loaded = ours(TaskSpec("m", "mmlu", str(lines(tmp_path / "m.jsonl", rows))))
    assert list(loaded["tasks"]) == ["m_anatomy", "m_law"]
    group = loaded["groups"]["m"]
    scored = {
        "m_anatomy": {"acc,none": 1.0, "acc_stderr,none": 0.0, "sample_len": 1},
        "m_law": {"acc,none": 0.0, "acc_stderr,none": 0.0, "sample_len": 3},
    }
    assert group.aggregate(scored)["acc,none"] == 0.25
    assert loaded["group_map"] == {"m": ["m_anatomy", "m_law"]}


def test_gsm8k_is_asked_as_by_the_harness_and_scored_in_two_ways(tmp_path: Path) -> None:
    rows = gsm8k_rows()
    path = lines(tmp_path / "g.jsonl", rows)
    (task,) = ours(TaskSpec("g", "gsm8k", f"{path}+{path}"), 2)["tasks"].values()
    own = its_own("gsm8k/gsm8k.yaml", {"train": rows, "test": rows}, fewshot_config={"sampler": "first_n"})
    asked, expected = requests_of(task, 2), requests_of(own, 2)
    assert [context for context, _ in asked] == [context for context, _ in expected]
    assert [settings["until"] for _, settings in asked] == [settings["until"] for _, settings in expected]
    assert asked[0][1]["max_gen_toks"] == 256
    task.build_all_requests()
    for request, written in zip(task.instances, ("#### 1,000", "The answer is 2000.", "it is 5"), strict=True):
        request.resps = [written]
    task.apply_filters()
    scores = {
        name: [task.process_results(each.doc, [each.filtered_resps[name]])["exact_match"] for each in task.instances]
        for name in task.instances[0].filtered_resps
    }
    assert scores == {"strict": [1.0, 0.0, 0.0], "flexible": [1.0, 1.0, 0.0]}


def test_perplexity_counts_words_and_bytes_of_the_text(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [{"text": "[é, two]"}, {"text": "3"}])
    (task,) = ours(TaskSpec("p", "perplexity", str(path)))["tasks"].values()
    assert requests_of(task) == [("[é, two]",), ("3",)]
    assert task.process_results(task.eval_docs[0], [-4.0]) == {
        "word_perplexity": (-4.0, 2), "byte_perplexity": (-4.0, 9), "bits_per_byte": (-4.0, 9),
    }  # fmt: skip


def test_a_written_folder_asks_the_very_same(tmp_path: Path) -> None:
    path = lines(tmp_path / "g.jsonl", gsm8k_rows())
    text = tmp_path / "p.txt"
    text.write_text("one two")
    specs = [
        (TaskSpec("h", "hellaswag", str(lines(tmp_path / "h.jsonl", hellaswag_rows()))), None),
        (TaskSpec("plain", "hellaswag-plain", str(tmp_path / "h.jsonl")), None),
        (TaskSpec("m", "mmlu", str(mmlu_folder(tmp_path / "m", {"test": 3, "dev": 2}))), 2),
        (TaskSpec("g", "gsm8k", f"{path}+{path}"), 1),
        (TaskSpec("chat.v1", "gsm8k-chat", str(path)), None),
        (TaskSpec("arithmetic", "arithmetic"), None),
        (TaskSpec("p", "perplexity", str(text)), None),
    ]
    tasks = [local_task(spec, TaskSettings(shots=shots)) for spec, shots in specs]
    write_tasks(tmp_path / "asked", tasks)
    (tmp_path / "asked").rename(tmp_path / "moved")
    manager = TaskManager(include_defaults=False, include_path=str(tmp_path / "moved"))
    for task in tasks:
        mine, written = load(task.for_harness()), manager.load([task.name])
        assert list(mine["tasks"]) == list(written["tasks"])
        assert list(mine["groups"]) == list(written["groups"])
        for name, each in written["tasks"].items():
            assert requests_of(each, task.shots) == requests_of(mine["tasks"][name], task.shots)
            assert each.config.num_fewshot == task.shots
            assert set(each.aggregation()) == set(mine["tasks"][name].aggregation())


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "m.jsonl", mmlu_rows())
    task = local_task(TaskSpec("m", "mmlu", str(path)), TaskSettings())
    other = local_task(TaskSpec("m_law", "mmlu", str(path)), TaskSettings())
    with pytest.raises(Refused, match="two tasks have the name m_law; give one of them another"):
        write_tasks(tmp_path / "asked", [task, other])
    with pytest.raises(Refused, match="exists; name another folder"):
        write_tasks(tmp_path, [task])
    monkeypatch.setattr("megatron_patches.evaluation.tasks.written_folder._yaml", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_tasks(tmp_path / "asked", [task])
    assert [each.name for each in tmp_path.iterdir()] == ["m.jsonl"]
