"""The same tasks by lm-eval's command line, through the export and in the engine; and by plain torch."""

import json
import math
import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.task import TaskSettings
from tests.megatron_patches.evaluation.harness.conftest import WINDOW, Made
from tests.megatron_patches.evaluation.harness.tiny_tasks import SUBJECTS, configurations, harness_task
from tests.ranks import run_on_ranks

pytestmark = pytest.mark.slow
SHOTS = {"subjects": 2}
NAMES = ("choice", "subjects", "sums", "text")


def tasks_of(items: Path) -> list[Any]:
    return [
        harness_task(config, TaskSettings(shots=SHOTS.get(name)), by_token=name == "choice")
        for name, config in configurations(items).items()
    ]


def command_line(made: Made, folder: Path) -> dict[str, Any]:
    """What `lm_eval` says of the same files: its command line, in a fork of this process that has not met our code."""
    for name, config in configurations(made.items).items():
        for each in config["task"] if name == "subjects" else []:
            (folder / f"{each['task']}.yaml").write_text(yaml.safe_dump({**each, "num_fewshot": SHOTS[name]}))
        whole = {**config, "task": [each["task"] for each in config["task"]]} if name == "subjects" else config
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole))
    words = [
        *("--model", "hf", "--model_args", f"pretrained={made.export('gpt2')}"),
        *("--include_path", str(folder), "--tasks", ",".join(NAMES), "--output_path", str(folder / "out")),
    ]
    fork = multiprocessing.get_context("fork").Process(target=run_command_line, args=(words, folder))
    fork.start()
    fork.join(300)
    assert fork.exitcode == 0, (folder / "told").read_text()
    (written,) = (folder / "out").rglob("results_*.json")
    found: dict[str, Any] = json.loads(written.read_text())["results"]
    return found


def run_command_line(words: list[str], folder: Path) -> None:
    """`lm_eval WORDS` in a folder, but that it does not list the tasks it comes with, which takes 10 s."""
    import lm_eval.__main__
    import lm_eval.tasks

    os.chdir(folder)
    sys.argv = ["lm_eval", *words]
    lm_eval.tasks.TaskManager = partial(lm_eval.tasks.TaskManager, include_defaults=False)
    with Path("told").open("w") as told, redirect_stdout(told), redirect_stderr(told):
        lm_eval.__main__.cli_evaluate()


def ask_all(made: Made, folder: Path) -> dict[str, Any]:
    """All tasks by the command line, through the export of GPT-2 and in the engine; what else both say; scores by hand.

    In one process, since to import lm-eval and its models takes longest.
    """
    import lm_eval.models.huggingface  # noqa: F401  before the fork

    theirs = command_line(made, folder)
    from megatron_patches.evaluation.harness.ask import ask
    from megatron_patches.evaluation.harness.model_in_engine import EngineModel
    from megatron_patches.evaluation.harness.model_on_export import load_export
    from megatron_patches.generation.loaded_model import load_model, start_alone

    heard: list[str] = []
    groups = start_alone()
    engine = EngineModel(load_model([made.checkpoints["gpt2"]], print, lambda: groups), None)
    export = load_export(made.export("gpt2"), None, None)
    found: dict[str, Any] = {"by hand": by_hand(export.model, export.tokenizer, made.items), "heard": heard}
    found["command line"] = theirs
    found["at other lengths"] = at_other_lengths(made, groups)
    for through, model in (("export", export), ("engine", engine)):
        outcomes = list(ask(model, tasks_of(made.items), through, 4 if through == "engine" else None, heard.append))  # type: ignore[arg-type]
        found[through] = {
            each.task.name: {
                "metrics": {name: vars(metric) for name, metric in each.metrics.items()},
                "parts": {
                    part: {name: vars(metric) for name, metric in of.metrics.items()} for part, of in each.parts.items()
                },
                "items": [item.model_dump() for item in each.items],
                "told": (each.through, each.shots, each.examples, each.precision, sorted(each.versions)),
            }
            for each in outcomes
        }
        found[f"{through} says"] = said(model)
    found["refused"] = refused(made, export, engine)
    return found


def instances(*arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("", {}, each, number) for number, each in enumerate(arguments)]


def said(model: Any) -> dict[str, Any]:
    """Answers to requests of all kinds: contexts that are empty, too long, or end with a space."""
    long = "abc defg " * 120
    pairs = [
        ("", "abc"),
        ("", " gh bc"),
        ("abc ", "de"),
        (long, "fed cab"),
        ("</s> a", " b"),
        ("<|endoftext|>gh", " c"),
    ]
    settings = {"until": ["h", "\n\n"], "max_gen_toks": 20, "do_sample": False}
    texts = [(text, settings) for text in ("abc", long, "ha hb hc", "Question: b", "f")]
    texts += (
        [("abc", {"until": "e", "max_gen_toks": 5}), ("gg", {"until": []})] if model.max_length > 256 else texts[:1]
    )
    return {
        "scores": model.loglikelihood(instances(*pairs), disable_tqdm=True),
        "texts": model.generate_until(instances(*texts), disable_tqdm=True),
        "rolling": model.loglikelihood_rolling(instances((long,), ("ab",), (long * 3,)), disable_tqdm=True),
    }


def by_hand(model: Any, tokenizer: Any, items: Path) -> dict[str, Any]:
    """Accuracies of the choices and the perplexity of the texts, from logits."""
    import torch

    def scores(context: list[int], ids: list[int]) -> float:
        with torch.no_grad():
            rows = model(torch.tensor([[*context, *ids[:-1]]])).logits[0].log_softmax(-1)
        return sum(rows[len(context) + place - 1, id].item() for place, id in enumerate(ids))

    right: dict[str, list[float]] = {"acc": [], "acc_norm": [], "acc_norm_token": []}
    for line in (items / "choice.jsonl").read_text().splitlines():
        item = json.loads(line)
        context = tokenizer(item["ctx"])["input_ids"]
        wholes = [tokenizer(f"{item['ctx']} {ending}")["input_ids"] for ending in item["endings"]]
        endings = [whole[len(context) :] for whole in wholes]
        likelihoods = [scores(context, ids) for ids in endings]
        characters, tokens = ([len(each) for each in some] for some in (item["endings"], endings))
        lengths = {"acc": [1] * 4, "acc_norm": characters, "acc_norm_token": tokens}
        for name, divisors in lengths.items():
            means = [value / length for value, length in zip(likelihoods, divisors, strict=True)]
            right[name].append(float(means.index(max(means)) == int(item["label"])))
    likelihood, tokens, size = 0.0, 0, 0
    for line in (items / "text.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = tokenizer(text)["input_ids"]
        likelihood += scores([tokenizer.eos_token_id], ids[:WINDOW])
        if rest := ids[WINDOW:]:  # one more window, which ends with the text and is full
            likelihood += scores(ids[-WINDOW - 1 :][: -len(rest)], rest)
        tokens, size = tokens + len(ids), size + len(text)
    return {**right, "perplexity": math.exp(-likelihood / tokens), "bits_per_byte": -likelihood / size / math.log(2)}


def refused(made: Made, export: Any, engine: Any) -> list[str]:
    """What cannot be asked of these models."""
    from megatron_patches.evaluation.harness.ask import ask
    from megatron_patches.evaluation.harness.model_in_engine import EngineModel
    from megatron_patches.evaluation.harness.model_on_export import load_export

    configs = configurations(made.items)
    long = {**configs["sums"], "generation_kwargs": {"max_gen_toks": WINDOW, "until": []}}
    drawn = {**configs["sums"], "generation_kwargs": {"do_sample": True, "temperature": 1.0, "max_gen_toks": 4}}
    endings = {**configs["choice"], "doc_to_choice": ["a b c d e f g h " * 40, "b", "c", "d"]}
    told = []
    for model, config in ((export, long), (export, endings), (engine, endings), (engine, drawn)):
        with pytest.raises(Refused) as error:
            list(ask(model, [harness_task(config)], "engine", None, lambda text: None))
        told.append(str(error.value))
    for load in (lambda: load_export(made.export("gpt2"), 500, None), lambda: EngineModel(engine._loaded, 500)):
        with pytest.raises(Refused) as error:
            load()
        told.append(str(error.value))
    return told


def at_other_lengths(made: Made, groups: Any) -> list[Any]:
    """Of BLOOM, whose positions do not end: what export and engine say at a longer and a shorter length."""
    from megatron_patches.evaluation.harness.model_in_engine import EngineModel
    from megatron_patches.evaluation.harness.model_on_export import load_export
    from megatron_patches.generation.loaded_model import load_model

    longer = EngineModel(load_model([made.checkpoints["bloom"]], print, lambda: groups, length=300), 300)
    lengths = [said(longer), said(EngineModel(longer._loaded, 100))]
    return [*lengths, *(said(load_export(made.export("bloom"), length, 2)) for length in (300, 100))]


@pytest.fixture(scope="module")
def found(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        found: dict[str, Any] = run_on_ranks(ask_all, 1, made, tmp_path_factory.mktemp("theirs"))[0]
    return found


def test_the_command_line_gives_the_same_numbers_to_the_last_digit(found: dict[str, Any]) -> None:
    theirs = found["command line"]
    assert set(theirs) == {*NAMES, *(f"subjects_{subject}" for subject in SUBJECTS)}
    compared = 0
    for name, numbers in theirs.items():
        task, _, subject = name.partition("_")
        ours = found["export"][task]
        metrics = ours["parts"][subject] if subject else ours["metrics"]
        for key, value in numbers.items():
            metric, comma, filter = key.partition(",")
            if not comma or value == "N/A":
                continue
            shown = metrics[metric.removesuffix("_stderr") + ("" if filter == "none" else f".{filter}")]
            assert shown["standard_error" if metric.endswith("_stderr") else "value"] == value, (name, key)
            compared += 1
    assert compared == 4 + 2 * 4 + 4 + 3


def test_export_and_engine_agree(found: dict[str, Any]) -> None:
    for name in NAMES:
        export, engine = found["export"][name], found["engine"][name]
        assert engine["metrics"].keys() == export["metrics"].keys()
        for theirs, ours in zip(export["items"], engine["items"], strict=True):
            assert {**ours, "metrics": None} == {**theirs, "metrics": None}
            assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-5)
        assert export["told"][1:] == engine["told"][1:] and engine["told"][0] == "engine"
    export, engine = found["export says"], found["engine says"]
    assert [each[0] for each in engine["scores"]] == pytest.approx([each[0] for each in export["scores"]], abs=1e-3)
    assert [each[1] for each in engine["scores"]] == [each[1] for each in export["scores"]]
    assert engine["rolling"] == pytest.approx(export["rolling"], abs=1e-3, rel=1e-6)
    assert engine["texts"] == export["texts"] and len(set(engine["texts"])) > 3
    assert any(map(len, engine["texts"]))


def test_numbers_are_those_of_plain_torch(found: dict[str, Any]) -> None:
    expected, choice, text = found["by hand"], found["export"]["choice"], found["export"]["text"]
    for name in ("acc", "acc_norm", "acc_norm_token"):
        values = expected[name]
        assert [item["metrics"][name] for item in choice["items"]] == values
        mean = sum(values) / len(values)
        error = math.sqrt(mean * (1 - mean) / (len(values) - 1))
        assert choice["metrics"][name] == {
            **{"value": pytest.approx(mean), "standard_error": pytest.approx(error)},
            **{"higher_is_better": True, "chance": 0.25},
        }
    assert len({tuple(expected[name]) for name in ("acc", "acc_norm", "acc_norm_token")}) == 3, (
        "they tell nothing apart"
    )
    for name in ("perplexity", "bits_per_byte"):
        assert text["metrics"][name]["value"] == pytest.approx(expected[name], rel=1e-5)
        assert text["metrics"][name]["higher_is_better"] is False


def test_what_is_told(found: dict[str, Any]) -> None:
    subjects = found["export"]["subjects"]
    assert subjects["told"] == ("export", 2, 16, "fp32", ["datasets", "lm-eval", "torch", "transformers"])
    assert {part: len([item for item in subjects["items"] if item["part"] == part]) for part in SUBJECTS} == SUBJECTS
    assert found["export"]["sums"]["told"][1:3] == (2, 6)
    assert "subjects.2-shot: asking 16 items in 3 parts" in found["heard"]
    assert any(text.startswith("lm-eval warns: Combined length of context") for text in found["heard"])


def test_what_does_not_fit_a_model_is_refused(found: dict[str, Any]) -> None:
    writes, *endings, draws, export, engine = found["refused"]
    assert f"lets the model write {WINDOW} tokens, and it sees {WINDOW}" in writes
    assert len(endings) == 2 and all(f"more than the {WINDOW} that the model sees" in told for told in endings)
    assert "evaluate through the export" in draws
    assert f"end after {WINDOW}" in export
    assert f"loaded for {WINDOW}" in engine


def test_both_see_as_much_as_is_asked_for(found: dict[str, Any]) -> None:
    longer, shorter, *exports = found["at other lengths"]
    assert abs(longer["rolling"][2] - shorter["rolling"][2]) > 0.1
    for engine, export in zip((longer, shorter), exports, strict=True):
        assert engine["rolling"] == pytest.approx(export["rolling"], rel=1e-5)
        assert [each[0] for each in engine["scores"]] == pytest.approx([each[0] for each in export["scores"]], abs=1e-3)
        assert engine["texts"] == export["texts"]
