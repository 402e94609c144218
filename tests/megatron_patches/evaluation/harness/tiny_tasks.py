"""Tasks of a few made-up items in files, as configurations of lm-eval: a choice, subjects, sums to write, a text."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megatron_patches.evaluation.tasks.task import HarnessTask, TaskSettings

SUBJECTS = {"anatomy": 5, "law": 7, "physics": 4}
ENDINGS = 4


def write_files(folder: Path) -> None:
    """The items, as `.jsonl`."""
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(80)]

    def text(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    folder.mkdir()
    _write(folder / "choice.jsonl", (_choice(text, draw) for _ in range(12)))
    for subject, count in SUBJECTS.items():
        for split, items in (("dev", 3), ("test", count)):
            _write(folder / f"{subject}-{split}.jsonl", (_question(text, draw) for _ in range(items)))
    for split, count in (("train", 4), ("test", 6)):
        _write(
            folder / f"sums-{split}.jsonl", ({"question": text(4), "answer": draw.choice("abcd")} for _ in range(count))
        )
    _write(folder / "text.jsonl", ({"text": text(count)} for count in (3, 90, 40)))


def _choice(text: Any, draw: random.Random) -> dict[str, object]:
    endings = [text(draw.randint(1, 5)) for _ in range(ENDINGS)]
    return {"ctx": text(6), "endings": endings, "label": str(draw.randrange(ENDINGS)), "kind": draw.choice(["x", "y"])}


def _question(text: Any, draw: random.Random) -> dict[str, object]:
    return {"question": text(5), "choices": [text(2) for _ in range(ENDINGS)], "answer": draw.randrange(ENDINGS)}


def _write(path: Path, items: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in items))


def configurations(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each task, as its YAML would have it."""
    return {
        "choice": _of_choice(folder),
        "subjects": _of_subjects(folder),
        "sums": _of_sums(folder),
        "text": _of_text(folder),
    }


def _files(**splits: Path) -> dict[str, Any]:
    return {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {name: str(path) for name, path in splits.items()}},
    }


def _means(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


def _of_choice(folder: Path) -> dict[str, Any]:
    return {
        "task": "choice", **_files(validation=folder / "choice.jsonl"), "output_type": "multiple_choice",
        "validation_split": "validation", "doc_to_text": "{{ctx}}", "doc_to_target": "{{label}}",
        "doc_to_choice": "endings", "metric_list": _means("acc", "acc_norm"), "metadata": {"version": 1.0},
    }  # fmt: skip


def _of_subjects(folder: Path) -> dict[str, Any]:
    letters = "".join(f"\n{letter}. {{{{choices[{number}]}}}}" for number, letter in enumerate("ABCD"))
    return {
        "group": "subjects",
        "task": [
            {
                "task": f"subjects_{subject}",
                **_files(dev=folder / f"{subject}-dev.jsonl", test=folder / f"{subject}-test.jsonl"),
                "output_type": "multiple_choice", "test_split": "test", "fewshot_split": "dev",
                "fewshot_config": {"sampler": "first_n"}, "doc_to_text": "{{question}}" + letters + "\nAnswer:",
                "doc_to_target": "answer", "doc_to_choice": ["A", "B", "C", "D"], "metric_list": _means("acc"),
                "metadata": {"version": 0.0},
            }
            for subject in SUBJECTS
        ],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 2},
    }  # fmt: skip


def _of_sums(folder: Path) -> dict[str, Any]:
    def first(name: str, pattern: str) -> dict[str, Any]:
        return {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}

    return {
        "task": "sums", **_files(train=folder / "sums-train.jsonl", test=folder / "sums-test.jsonl"),
        "output_type": "generate_until", "training_split": "train", "fewshot_split": "train", "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}", "num_fewshot": 2,
        "generation_kwargs": {"until": ["Question:", "</s>", "e"], "do_sample": False, "max_gen_toks": 12},
        "metric_list": [{**_means("exact_match")[0], "ignore_case": True}],
        "filter_list": [first("strict", "([a-d])"), first("flexible", "([a-h]+)")],
        "metadata": {"version": 3.0},
    }  # fmt: skip


def _of_text(folder: Path) -> dict[str, Any]:
    metrics = [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    return {
        "task": "text", **_files(test=folder / "text.jsonl"), "output_type": "loglikelihood_rolling",
        "test_split": "test", "doc_to_text": "", "doc_to_target": "{{text}}", "metric_list": metrics,
        "metadata": {"version": 1.0},
    }  # fmt: skip


def harness_task(config: str | Mapping[str, Any], settings: TaskSettings | None = None, **given: Any) -> HarnessTask:
    """A task under the name that its configuration has."""
    name = config if isinstance(config, str) else str(config.get("group") or config["task"])
    return HarnessTask(name, "1", "0" * 64, settings or TaskSettings(), config, **given)
