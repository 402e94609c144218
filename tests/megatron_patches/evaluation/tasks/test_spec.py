"""Tasks as command lines name them."""

from pathlib import Path

import pytest

from megatron_patches.errors import Missing, Refused
from megatron_patches.evaluation.tasks import spec as spec_module
from megatron_patches.evaluation.tasks.counterpart import local_counterpart
from megatron_patches.evaluation.tasks.spec import TaskSpec, parse_task, split_tasks


@pytest.fixture(autouse=True)
def few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name: Path(f"{name}.yaml") for name in ("hellaswag", "mmlu", "gsm8k", "arc_easy", "arc_challenge")}
    monkeypatch.setattr(spec_module, "harness_names", lambda: names)


@pytest.mark.parametrize(
    ("text", "expected", "local", "loss"),
    [
        ("hellaswag:a/b.jsonl", TaskSpec("hellaswag", "hellaswag", "a/b.jsonl"), True, False),
        ("hellaswag", TaskSpec("hellaswag", "hellaswag"), False, False),
        ("easy=arc_easy", TaskSpec("easy", "arc_easy"), False, False),
        ("wiki=perplexity:a=b:c.txt", TaskSpec("wiki", "perplexity", "a=b:c.txt"), True, False),
        ("perplexity:a=b.txt", TaskSpec("perplexity", "perplexity", "a=b.txt"), True, False),
        ("arithmetic", TaskSpec("arithmetic", "arithmetic"), True, False),
        ("validation", TaskSpec("validation", "validation"), False, True),
        ("validation:web", TaskSpec("validation-web", "validation", "web"), False, True),
        ("dataset:data/x", TaskSpec("dataset", "dataset", "data/x"), False, True),
    ],
)
def test_a_task_is_a_name_a_word_and_a_source(text: str, expected: TaskSpec, local: bool, loss: bool) -> None:
    spec = parse_task(text)
    assert spec == expected
    assert (spec.is_local, spec.is_loss) == (local, loss)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' names no task"),
        ("hellaswag:", "names no file; write hellaswag:FILE"),
        ("hellaswag-plain", "needs a file; write hellaswag-plain:FILE"),
        ("gsm8k-chat", "needs a file; write gsm8k-chat:FILE"),
        ("arithmetic:x.jsonl", "arithmetic has no file; write arithmetic alone"),
        ("dataset", "names no dataset; write dataset:PREFIX"),
        ("validation:", "names no group; write validation or validation:GROUP"),
        ("a/b=arc_easy", "'a/b' cannot name a result: a name begins with a letter"),
        ("=arc_easy", "'' cannot name a result"),
        ("manifest=arc_easy", "'manifest' cannot name a result"),
        ("validation:a/b", "'validation-a/b' cannot name a result: .*; put one in front, as in NAME=validation:a/b"),
        ("\udcff", "names no task"),
    ],
)
def test_what_names_no_task_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse_task(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arc_eazy", "no task 'arc_eazy' \\(the nearest: arc_easy\\)"),
        ("helaswag", "no task 'helaswag' \\(the nearest: hellaswag, hellaswag-plain\\)"),
        ("HELASWAG", "no task 'HELASWAG' \\(the nearest: hellaswag, hellaswag-plain\\)"),
        ("Hellaswag:a", "no format 'Hellaswag' of local files \\(the nearest: hellaswag,"),
        (
            "perplexitty:a.txt",
            "no format 'perplexitty' of local files \\(the nearest: perplexity, pseudo-perplexity\\);",
        ),
        ("arc_easy:a.txt", "no format 'arc_easy' of local files; `tools/evals tasks`"),
        ("qqq", "no task 'qqq'; `tools/evals tasks` lists"),
    ],
)
def test_an_unknown_word_gets_the_nearest_ones(text: str, message: str) -> None:
    with pytest.raises(Missing, match=message):
        parse_task(text)


def test_local_words_never_look_up_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(spec_module, "harness_names", never)
    for text in ("mmlu:folder", "arithmetic", "validation", "dataset:x", "gsm8k:x.jsonl"):
        parse_task(text)


def test_options_are_divided_at_commas() -> None:
    assert [spec.name for spec in split_tasks(["arithmetic, arc_easy", "mmlu:m"])] == ["arithmetic", "arc_easy", "mmlu"]
    with pytest.raises(Refused, match="names no task"):
        split_tasks(["arithmetic,"])


def test_two_tasks_of_one_name_are_refused_with_the_remedy() -> None:
    with pytest.raises(Refused, match=r"two tasks have the name mmlu, .* as in --tasks OTHER=mmlu:a"):
        split_tasks(["mmlu:a", "mmlu:b"])
    assert [spec.name for spec in split_tasks(["mmlu:a,other=mmlu:b"])] == ["mmlu", "other"]


def test_tasks_of_the_harness_have_local_counterparts() -> None:
    for name, form in {
        "hellaswag": "hellaswag:FILE.jsonl", "mmlu_anatomy": "mmlu:FOLDER", "gsm8k": "gsm8k:FILE.jsonl",
        "arithmetic_2da": "arithmetic", "wikitext": "perplexity:FILE.txt", "arc_easy": None,
    }.items():  # fmt: skip
        assert local_counterpart(name) == form
