"""`tools/evals compare`: two checkpoints on the tasks that both were evaluated on."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.artefacts.evaluations.result import DataFile, Item, Metric
from megatron_patches.artefacts.evaluations.shelf import seal
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from tests.command_line import Call, verb
from tests.tools.commands.compared_shelves import answers, shelve_task, subjects
from tools.commands.evals import command_line
from tools.commands.evals.comparing.compared_items import paired_items

RUN = "tr900a-28K-small"
OTHER = "tr900b-28K-other"
A, B = f"{RUN}@100", f"{RUN}@200"


@pytest.fixture
def evals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return verb(command_line, monkeypatch, capsys)


@pytest.fixture
def runs(places: Path) -> Path:
    return places / "runs"


@pytest.fixture
def two(runs: Path) -> Path:
    """Two steps, of which the later is better at hellaswag by .008."""
    for step, right in zip((100, 200), answers(181, 235, 569, 2000), strict=True):
        shelve_task(runs, RUN, step, "hellaswag", {"acc": right[::-1], "acc_norm": right})
    return runs


def compared(evals: Call, *arguments: object) -> dict[str, dict[str, object]]:
    """Tasks by label, from --json."""
    done = evals("compare", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return {task["label"]: task for task in json.loads(done.stdout)["tasks"]}


def test_a_pair_is_shown_better(evals: Call, two: Path) -> None:
    done = evals("compare", A, B)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"A: {A} (100,000 tokens)"
    (row,) = (line for line in lines if line.startswith("hellaswag"))
    assert row.split()[:4] == ["hellaswag.acc_norm", "0.3750", "0.4020", "0.0270"]
    assert "0.0070 to 0.0471  0.008  B is better  mid-p McNemar, 2,000 items paired" in row
    task = compared(evals, A, RUN, "--metric", "acc")["hellaswag"]  # RUN is its latest step
    assert (task["metric"], task["better"], task["test"]) == ("acc", "B", "mcnemar")


def test_the_worse_comes_second(evals: Call, two: Path) -> None:
    assert compared(evals, B, A)["hellaswag"]["better"] == "A"


def test_no_difference_is_said_with_what_would_be_seen(evals: Call, runs: Path) -> None:
    for step, right in zip((100, 200), answers(50, 55, 100, 1000), strict=True):
        shelve_task(runs, RUN, step, "arc", {"acc": right})
    task = compared(evals, A, B)["arc"]
    assert task["difference_seen"] == pytest.approx((1.959964 + 0.841621) * (0.105 / 1000) ** 0.5, rel=0.01)
    assert task["verdict"] == f"no difference shown (one of {task['difference_seen']:.4f} would be seen 4 times in 5)"
    assert task["better"] is None


def test_few_discordant_items_promise_no_more_than_they_hold(evals: Call, runs: Path) -> None:
    """By the standard error a difference of 0.028 would be seen 4 times in 5: it is seen once in seven times."""
    for step, right in zip((100, 200), answers(0, 1, 30, 100), strict=True):
        shelve_task(runs, RUN, step, "arc", {"acc": right})
        shelve_task(runs, RUN, step, "same", {"acc": [1.0, 0.0] * 50})
        shelve_task(runs, RUN, step, "tiny", {"acc": [1.0, 0.0]})
    assert compared(evals, A, B, "--tasks", "arc")["arc"]["difference_seen"] == pytest.approx(0.0663, abs=1e-4)
    found = compared(evals, A, B)
    told = "no difference shown (the same on every item; one of 0.0779 would be seen 4 times in 5)"
    assert found["same"]["verdict"] == told
    assert found["tiny"]["verdict"] == "no difference shown (the same on every item; too few items)"


def test_few_clusters_among_other_tasks_show_nothing(evals: Call, runs: Path) -> None:
    """10 clusters have 1,024 signs, of which none is as rare as the first of two tasks must be here."""
    for step, right in zip((100, 200), answers(10, 14, 30, 100), strict=True):
        shelve_task(runs, RUN, step, "mmlu", {"acc": right}, clusters=subjects(100, 10))
        shelve_task(runs, RUN, step, "arc", {"acc": right})
    task = compared(evals, A, B, "--alpha", 0.001)["mmlu"]
    assert (task["difference_seen"], task["verdict"]) == (None, "no difference shown (too few clusters)")
    assert compared(evals, A, B, "--alpha", 0.001, "--tasks", "mmlu")["mmlu"]["difference_seen"] is not None


def test_the_mirror(evals: Call, two: Path) -> None:
    clusters = subjects(200, 14)
    for step, right in zip((100, 200), answers(20, 34, 30, 200), strict=True):
        shelve_task(two, RUN, step, "mmlu", {"acc": right}, clusters=clusters)
    one, other = compared(evals, A, B), compared(evals, B, A)
    for label in ("hellaswag", "mmlu"):
        ends = [float(str(one[label][name])) for name in ("difference", "low", "high")]
        assert [-float(str(other[label][name])) for name in ("difference", "high", "low")] == pytest.approx(ends)
        assert other[label]["p"] == one[label]["p"]


def test_a_strict_match_comes_before_others_as_in_tables(evals: Call, runs: Path) -> None:
    first, second = answers(10, 40, 20, 100)
    for step, right in ((100, first), (200, second)):
        shelve_task(runs, RUN, step, "gsm8k", {"exact_match.flexible": first, "exact_match.strict": right})
    assert compared(evals, A, B)["gsm8k"]["metric"] == "exact_match.strict"


def test_a_single_text_is_refused_with_a_remedy(evals: Call, runs: Path) -> None:
    for step, number in ((100, 1.5), (200, 1.4)):
        shelve_task(runs, RUN, step, "text", {"bits_per_byte": [number]}, lower=True)
    done = evals("compare", A, B)
    assert (done.returncode, "one item" in done.stderr, "a text in each line" in done.stderr) == (2, True, True)


def test_a_loss_is_compared_by_its_standard_error(evals: Call, runs: Path) -> None:
    for step, number in ((100, 2.5), (200, 2.4)):
        known = {"loss": Metric(value=number, standard_error=0.01, higher_is_better=False)}
        shelve_task(runs, RUN, step, "validation", {"loss": [number]}, metrics=known, keep=False)
    done = evals("compare", A, B)
    assert (done.returncode, "a loss keeps no items" in done.stderr, "evaluate again" in done.stderr) == (
        2,
        True,
        False,
    )
    assert compared(evals, A, B, "--unpaired")["validation"]["better"] == "B"


def test_losses_are_better_when_lower(evals: Call, runs: Path) -> None:
    random = np.random.default_rng(0)
    first = random.normal(1, 0.3, 200)
    second = first - 0.05 + random.normal(0, 0.05, 200)
    for step, numbers in ((100, first), (200, second)):
        shelve_task(runs, RUN, step, "text", {"bits_per_byte": numbers.tolist()}, lower=True)
    task = compared(evals, A, B)["text"]
    assert (task["test"], task["better"]) == ("t", "B")
    assert task["difference"] == pytest.approx(float((second - first).mean()))


def test_several_tasks_are_adjusted_by_holm(evals: Call, two: Path) -> None:
    for task, alone in (("arc", (30, 50)), ("piqa", (40, 44))):
        for step, right in zip((100, 200), answers(*alone, 100, 500), strict=True):
            shelve_task(two, RUN, step, task, {"acc": right})
    found = compared(evals, A, B)
    p = {label: float(str(task["p"])) for label, task in found.items()}
    assert found["hellaswag"]["adjusted_p"] == pytest.approx(3 * p["hellaswag"])
    assert found["arc"]["adjusted_p"] == pytest.approx(2 * p["arc"])
    assert p["arc"] < 0.05 < float(str(found["arc"]["adjusted_p"]))
    assert found["arc"]["better"] is None
    assert "Holm: p adjusted for 3 tasks at once" in evals("compare", A, B).stdout
    assert compared(evals, A, B, "--tasks", "arc")["arc"]["better"] == "B"
    assert list(compared(evals, A, B, "--tasks", "arc,piqa", "--tasks", "arc")) == ["arc", "piqa"]


def test_clusters_count_where_there_are_ten(evals: Call, runs: Path) -> None:
    """The second is better on one subject of twelve alone: McNemar is sure of it, the clusters are not."""
    clusters = subjects(1200, 12)
    first = np.zeros(1200)
    second = np.where(np.array(clusters) == "subject 3", 1.0, 0.0)
    for step, right in ((100, first), (200, second)):
        shelve_task(runs, RUN, step, "mmlu", {"acc": right.tolist()}, clusters=clusters)
    task = compared(evals, A, B)["mmlu"]
    assert (task["test"], task["clusters"], task["better"]) == ("clusters", 12, None)
    task = compared(evals, A, B, "--items")["mmlu"]
    assert (task["test"], task["clusters"], task["better"]) == ("mcnemar", None, "B")


def test_few_clusters_are_refused(evals: Call, runs: Path) -> None:
    for step, right in zip((100, 200), answers(3, 20, 10, 100), strict=True):
        shelve_task(runs, RUN, step, "mmlu", {"acc": right}, clusters=subjects(100, 9))
    done = evals("compare", A, B)
    assert done.returncode == 2
    assert "mmlu: its items are in 9 clusters" in done.stderr and "--items" in done.stderr
    assert compared(evals, A, B, "--items")["mmlu"]["test"] == "mcnemar"


def test_one_cluster_is_none(evals: Call, runs: Path) -> None:
    for step, right in zip((100, 200), answers(3, 20, 10, 100), strict=True):
        shelve_task(runs, RUN, step, "anatomy", {"acc": right}, clusters=subjects(100, 1))
    assert compared(evals, A, B)["anatomy"]["test"] == "mcnemar"


def test_items_are_paired_by_their_ids(evals: Call, runs: Path) -> None:
    """The same items in another order, written by hand."""
    first, second = answers(5, 30, 20, 100)
    shelve_task(runs, RUN, 100, "arc", {"acc": first})
    folder = shelve_task(runs, RUN, 200, "arc", {"acc": second})
    expected = compared(evals, A, B)["arc"]
    items = folder / "arc.items.jsonl"
    items.write_text("".join(f"{line}\n" for line in reversed(items.read_text().splitlines())))
    (folder / "manifest.json").unlink()
    seal(folder)
    assert compared(evals, A, B)["arc"] == expected


def test_items_that_are_there_twice_are_paired_in_their_order() -> None:
    first, second = (
        [Item(id=name, metrics={"acc": score}) for name, score in zip(names, scores, strict=True)]
        for names, scores in (("aab", (1.0, 2.0, 3.0)), ("baa", (4.0, 5.0, 6.0)))
    )
    pairs = zip(*paired_items(first, second), strict=True)
    assert [(one.metrics["acc"], two.metrics["acc"]) for one, two in pairs] == [(1, 5), (2, 6), (3, 4)]


def test_items_that_are_not_the_same(evals: Call, runs: Path) -> None:
    first, second = answers(10, 40, 20, 100)
    shelve_task(runs, RUN, 100, "arc", {"acc": first})
    shelve_task(runs, RUN, 200, "arc", {"acc": second[:90]})
    done = evals("compare", A, B)
    assert done.returncode == 2
    assert "the items are not the same (90 of 100 and 90)" in done.stderr and "--unpaired" in done.stderr
    assert compared(evals, A, B, "--unpaired")["arc"]["test"] == "unpaired"


def test_items_that_were_not_kept(evals: Call, runs: Path) -> None:
    for step, right in zip((100, 200), answers(181, 235, 569, 2000), strict=True):
        shelve_task(runs, RUN, step, "hellaswag", {"acc": right}, keep=False)
    done = evals("compare", A, B)
    assert done.returncode == 2
    assert f"hellaswag: the items of {A} were not kept" in done.stderr
    task = compared(evals, A, B, "--unpaired")["hellaswag"]
    assert float(str(task["p"])) == pytest.approx(0.080, abs=5e-4)
    assert "not paired" in str(task["notes"])


def test_losses_beside_tasks_with_items(evals: Call, two: Path) -> None:
    for step, number in ((100, 3.0), (200, 2.0)):
        known = {"loss": Metric(value=number, standard_error=0.01, higher_is_better=False)}
        shelve_task(two, RUN, step, "validation", {"loss": [number]}, metrics=known, keep=False)
    done = evals("compare", A, B)
    assert (done.returncode, done.stderr) == (
        0, "left out, as losses keep no items that could be paired: validation; --unpaired takes them\n",
    )  # fmt: skip
    assert list(compared(evals, A, B)) == ["hellaswag"]
    assert list(compared(evals, A, B, "--unpaired")) == ["hellaswag", "validation"]
    assert evals("compare", A, B, "--tasks", "hellaswag,validation").returncode == 2


def test_pairs_are_taken_where_there_are_any(evals: Call, two: Path) -> None:
    assert compared(evals, A, B, "--unpaired")["hellaswag"]["test"] == "mcnemar"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "2.0"}, "version 1.0 and 2.0"),
        ({"shots": 5}, "shots 0 and 5"),
        ({"limit": 100}, "limit all items and 100"),
        ({"length": 512}, "length that of training and 512"),
        (
            {"data": [DataFile(name="new.jsonl", sha256="0" * 64, rows=1)]},
            "data arc.jsonl (eeeeeeee) and new.jsonl (00000000)",
        ),
        ({}, "prompts or metrics differ (definitions dddddddd and ffffffff)"),
    ],
)
def test_other_definitions_are_refused(evals: Call, runs: Path, changed: dict[str, object], said: str) -> None:
    first, second = answers(10, 40, 20, 100)
    shelve_task(runs, RUN, 100, "arc", {"acc": first})
    shelve_task(runs, RUN, 200, "arc", {"acc": second}, definition="f" * 64, **changed)
    done = evals("compare", A, B, "--unpaired")
    assert done.returncode == 2
    assert f"arc: the two were not asked the same: {said}; evaluate one of them again" in done.stderr


def test_another_way_of_asking_is_noted(evals: Call, runs: Path) -> None:
    first, second = answers(10, 40, 20, 100)
    shelve_task(runs, RUN, 100, "arc", {"acc": first})
    shelve_task(runs, RUN, 200, "arc", {"acc": second}, through="engine", precision="fp32")
    done = evals("compare", A, B)
    assert "arc: A was asked through its export, B through the engine" in done.stdout
    assert "arc: A computed in bf16, B in fp32" in done.stdout


def test_no_task_in_common(evals: Call, two: Path) -> None:
    shelve_task(two, OTHER, 300, "arc", {"acc": [1, 0]})
    done = evals("compare", A, f"{OTHER}@300")
    assert done.returncode == 2
    assert "no task in common: A has hellaswag; B has arc" in done.stderr
    assert "not both were evaluated on arc" in evals("compare", A, B, "--tasks", "arc").stderr


def test_the_same_checkpoint_twice(evals: Call, two: Path) -> None:
    assert "of the same checkpoint" in evals("compare", B, RUN).stderr
    right, _ = answers(10, 40, 20, 100)
    shelve_task(two, OTHER, 100, "hellaswag", {"acc": right})  # its id follows from the step
    assert "of the same checkpoint" in evals("compare", A, OTHER).stderr


def test_a_step_that_was_not_evaluated(evals: Call, two: Path) -> None:
    done = evals("compare", A, f"{RUN}@300")
    assert (done.returncode, "step 300" in done.stderr, "evaluated: 100, 200" in done.stderr) == (2, True, True)
    (two / OTHER / "launches").mkdir(parents=True)
    assert f"tools/evals run {OTHER}" in evals("compare", A, OTHER).stderr
    assert "there is no run directory" in evals("compare", A, "tr999").stderr


def test_folders_are_taken(evals: Call, two: Path) -> None:
    shelf = two / RUN / "evals"
    assert compared(evals, shelf / "step-0000000100", shelf / "step-0000000200")["hellaswag"]["better"] == "B"
    (shelf / "notes").mkdir()
    assert "is no evaluation" in evals("compare", A, shelf / "notes").stderr


def test_an_invalid_evaluation_is_left_out(evals: Call, two: Path) -> None:
    path = two / RUN / "evals" / "step-0000000200" / "manifest.json"
    status = Status(state="invalid", reason="the data was wrong", date="2026-11-30")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    done = evals("compare", A, B)
    assert done.returncode == 2
    assert "the data was wrong" in done.stderr and "--invalid" in done.stderr
    assert "of the same checkpoint" in evals("compare", A, RUN).stderr  # the latest that is valid
    assert compared(evals, A, B, "--invalid")["hellaswag"]["better"] == "B"


def test_folders_that_are_not_whole(evals: Call, two: Path) -> None:
    folder = two / RUN / "evals" / "step-0000000200"
    items = folder / "hellaswag.items.jsonl"
    written = items.read_bytes()
    items.write_bytes(written.replace(b'"acc_norm": 0.0', b'"acc_norm": 1.0', 1))
    assert "its manifest says" in evals("compare", A, B).stderr
    items.write_bytes(written)
    (folder / "arc.json").write_bytes(b"{}")
    assert "is no result of an evaluation" in evals("compare", A, B).stderr
    (folder / "arc.json").unlink()
    (folder / "manifest.json").unlink()
    done = evals("compare", A, B)
    assert (done.returncode, "evaluate the step again, which seals it" in done.stderr) == (2, True)


def test_a_metric_that_items_lack(evals: Call, two: Path) -> None:
    assert "--metric acc or acc_norm" in evals("compare", A, B, "--metric", "f1").stderr


def test_means_that_are_not_the_tasks_own_number(evals: Call, runs: Path) -> None:
    for step, numbers in ((100, [1.0, 2.0, 4.0]), (200, [1.5, 2.0, 3.0])):
        own = {"word_perplexity": Metric(value=9.0, higher_is_better=False)}
        shelve_task(runs, RUN, step, "text", {"word_perplexity": numbers}, lower=True, metrics=own)
    assert "compared are means over items; the task's own word_perplexity" in evals("compare", A, B).stdout


def test_csv_has_a_row_for_each_task(evals: Call, two: Path, tmp_path: Path) -> None:
    done = evals("compare", A, B, "--csv", tmp_path / "out.csv")
    assert (done.returncode, done.stderr) == (0, f"written: {tmp_path / 'out.csv'}\n")
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert (row["first_checkpoint"], row["label"], row["better"]) == (A, "hellaswag", "B")
    assert evals("compare", A, B, "--csv", tmp_path / "no" / "out.csv").returncode == 2


@pytest.mark.parametrize("arguments", [("compare", A, B), ("plan", RUN), ("plan", "--examples", 100)])
def test_without_scipy(evals: Call, two: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "scipy" else found(name, *more)
    )
    done = evals(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "need scipy, which is not installed: pip install -c constraints.txt -e .[evals]" in done.stderr


def test_names_that_would_steer_a_terminal(evals: Call, two: Path) -> None:
    done = evals("compare", A, B, "--tasks", "x\x1b[2J")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


@pytest.mark.slow
def test_help_imports_neither_numpy_nor_scipy() -> None:
    code = (
        "import sys; import tools.commands.evals.command_line; "
        "print(*sorted({'numpy', 'scipy', 'pydantic', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
