"""`tools/evals plan`: what an evaluation could show."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.evaluation.statistics.power import Demands, items_needed, smallest_difference
from tests.command_line import Call, verb
from tests.tools.commands.compared_shelves import answers, shelve_task, subjects
from tools.commands.evals import command_line

RUN = "tr900a-28K-small"


@pytest.fixture
def evals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return verb(command_line, monkeypatch, capsys)


def planned(evals: Call, *arguments: object) -> dict[str, Any]:
    done = evals("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_numbers_alone(evals: Call) -> None:
    found = planned(evals, "--examples", 1319, "--discordant", 0.1, "--difference", 0.02)
    (task,) = found["tasks"]
    assert [line["items"] for line in task["plan"]] == [100, 300, 1000, 1319]
    assert task["plan"][-1]["smallest_difference"] == [smallest_difference(1319, 0.1, Demands())]
    assert task["items_needed"] == [items_needed(0.1, 0.02, Demands())]
    stricter = planned(evals, "--examples", 1319, "--discordant", 0.1, "--at-once", 4, "--power", 0.9, "--alpha", 0.01)
    expected = smallest_difference(1319, 0.1, Demands(power=0.9, alpha=0.01, tasks=4))
    assert stricter["tasks"][0]["plan"][-1]["smallest_difference"] == [expected]


def test_accuracy_gives_a_range(evals: Call) -> None:
    (task,) = planned(evals, "--examples", 1319, "--accuracy", 0.3)["tasks"]
    assert task["discordant"] == pytest.approx([0.105, 0.21, 0.42])
    smallest = task["plan"][-1]["smallest_difference"]
    assert smallest == sorted(smallest)
    done = evals("plan", "--examples", 1319, "--accuracy", 0.3)
    assert " / ".join(f"{each:.4f}" for each in smallest) in done.stdout
    assert "much alike / half alike / unrelated" in done.stdout


def test_clusters_cost_items(evals: Call) -> None:
    arguments = ("--examples", 14042, "--discordant", 0.2)
    alone = planned(evals, *arguments)["tasks"][0]["plan"][-1]["smallest_difference"][0]
    assumed, none = (
        planned(evals, *arguments, "--clusters", 57, *more)["tasks"][0] for more in ((), ("--correlation", 0))
    )
    assert assumed["correlation"] == 0.02
    assert alone < none["plan"][-1]["smallest_difference"][0] < 1.1 * alone
    assert assumed["plan"][-1]["smallest_difference"][0] > 2 * alone


@pytest.fixture(scope="module")
def shelved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with two tasks of 2,000 items and a loss."""
    runs = tmp_path_factory.mktemp("shelved")
    for step, right in zip((100, 200), answers(181, 235, 569, 2000), strict=True):
        shelve_task(runs, RUN, step, "hellaswag", {"acc": right})
        shelve_task(runs, RUN, step, "mmlu", {"acc": right}, clusters=subjects(2000, 20))
        shelve_task(runs, RUN, step, "text", {"bits_per_byte": [1.5, 2.5]}, lower=True)
    return runs


@pytest.fixture
def evaluated(shelved: Path, places: Path) -> Path:
    return shutil.copytree(shelved, places / "runs")


def test_a_run_gives_its_numbers(evals: Call, evaluated: Path) -> None:
    done = evals("plan", RUN)
    assert done.returncode == 0, done.stderr
    assert "hellaswag.acc: discordant 20.8 %: as between steps 100 and 200" in done.stdout
    assert "mmlu.acc: correlation in clusters 0.000: as between steps 100 and 200" in done.stdout
    assert "2 tasks at once (Holm)" in done.stdout
    assert "left out, as items are not kept or not right or wrong: text" in done.stderr
    found = planned(evals, f"{RUN}@100", "--tasks", "hellaswag")
    (task,) = found["tasks"]
    assert (task["discordant"], found["tasks_at_once"]) == ([0.208], 1)
    assert [line["seconds"] for line in task["plan"]] == [3, 9, 30, 60]
    assert task["plan"][-1]["smallest_difference"] == [smallest_difference(2000, 0.208, Demands())]


def test_one_step_gives_a_range(evals: Call, places: Path) -> None:
    right, _ = answers(200, 0, 400, 2000)
    shelve_task(places / "runs", RUN, 100, "arc", {"acc": right})
    (task,) = planned(evals, RUN)["tasks"]
    assert task["discordant"] == pytest.approx([0.105, 0.21, 0.42])
    (task,) = planned(evals, RUN, "--discordant", 0.3)["tasks"]
    assert task["discordant"] == [0.3]


def test_a_task_on_which_all_answers_are_wrong(evals: Call, places: Path) -> None:
    shelve_task(places / "runs", RUN, 100, "arithmetic", {"exact_match": [0.0] * 281})
    (task,) = planned(evals, RUN)["tasks"]
    assert {each for line in task["plan"] for each in line["smallest_difference"]} == {None}


def test_nothing_to_be_seen_is_said(evals: Call) -> None:
    done = evals("plan", "--examples", 10, "--discordant", 0.1, "--difference", 0.2)
    assert done.returncode == 0
    assert "\n-: these are too few items to show any difference\n-: no number of items shows this" in done.stdout
    assert "\n-:" not in evals("plan", "--examples", 1000, "--discordant", 0.1).stdout
    assert planned(evals, "--examples", 10, "--discordant", 0.1)["tasks"][0]["plan"][0]["smallest_difference"] == [None]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a run that was evaluated, or --examples N"),
        ((RUN, "--examples", 5), "one of the two"),
        (("--examples", 500, "--correlation", 0.1), "give --clusters too"),
        (("--examples", 500, "--clusters", 9), "at least 10"),
        (("--examples", 11, "--clusters", 12), "no more than 11 items"),
        (("--examples", 500, "--tasks", "arc"), "--at-once"),
        ((RUN, "--clusters", 57), "a run's items have their own"),
        ((RUN, "--tasks", "nothing"), "it has hellaswag, mmlu, text"),
        ((RUN, "--tasks", "text"), "no result whose items were kept and are right or wrong"),
    ],
)
def test_refusals(evals: Call, evaluated: Path, arguments: tuple[object, ...], said: str) -> None:
    done = evals("plan", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
