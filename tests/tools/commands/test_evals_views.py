"""`tools/evals table`, `plot` and `heatmap`: what they print, write and refuse."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.artefacts.evaluations.shelf import evaluation_folder
from megatron_patches.artefacts.evaluations.states import Claim, claim
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from tests.command_line import Call, verb
from tests.tools.shelved_results import made_result, mmlu, put, share
from tools.commands.evals import command_line as evals

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def shelved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; each has a task at all of its steps, one with parts at two, and a perplexity at one."""
    folder = tmp_path_factory.mktemp("runs")
    for run, more in (("tr9a-4M-small", 0.0), ("tr9b-4M-large", 0.1)):
        results = [
            made_result(run, step, "hellaswag", {"acc": share(0.26, 1000), "acc_norm": share(value + more, 1000)})
            for step, value in ((1000, 0.3), (2000, 0.42), (3000, 0.4))
        ]
        results += [mmlu(run, step, {"anatomy": 0.0, "law": step / 10_000}) for step in (1000, 3000)]
        perplexity = Metric(value=12.5, higher_is_better=False)
        results.append(made_result(run, 3000, "wiki", {"perplexity": perplexity}, limit=8))
        put(folder / run, results)
    return folder


@pytest.fixture
def runs(shelved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of them."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "80")
    return shutil.copytree(shelved, tmp_path / "runs")


@pytest.fixture
def call(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`tools/evals` in this process, with these runs, in a pipe."""
    return verb(evals, monkeypatch, capsys)


TABLE = """\
step  tokens  hellaswag.acc_norm         mmlu.acc  wiki.limit-8.perplexity
1000      2B     0.3000 ±0.0145   0.3000 ±0.0325                         -
2000      4B     0.4200 ±0.0156*               -                         -
3000      6B     0.4000 ±0.0155   0.4000 ±0.0347*                   12.500

* best of its column; ± one standard error
chance: hellaswag.acc_norm 0.25, mmlu.acc 0.25
wiki.limit-8: only the first 8 items, of each part
"""


def test_the_table(call: Call) -> None:
    done = call("table", "tr9a")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == TABLE


def test_a_narrow_terminal_has_a_table_after_the_other(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("table", "tr9a").stdout.splitlines()
    assert [line.split() for line in lines if line.startswith("step")] == [
        ["step", "tokens", "hellaswag.acc_norm", "mmlu.acc"], ["step", "tokens", "wiki.limit-8.perplexity"],
    ]  # fmt: skip
    assert max(map(len, lines)) <= 60


def test_parts_are_rows(call: Call) -> None:
    lines = call("table", "tr9a", "--tasks", "mmlu", "--parts").stdout.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["step", "1000", "step", "3000"],
        ["mmlu.acc", "0.3000", "±0.0325", "0.4000", "±0.0347*"],
        ["mmlu.anatomy.acc", "0.2500", "±0.0435", "0.2500", "±0.0435"],
        ["mmlu.law.acc", "0.3500", "±0.0479", "0.5500", "±0.0500*"],
    ]  # fmt: skip


def test_several_runs_and_every_metric(call: Call) -> None:
    lines = call("table", "tr9a", "tr9b", "--tasks", "hellaswag", "--all-metrics").stdout.splitlines()
    assert lines[0].split() == ["run", "step", "tokens", "hellaswag.acc", "hellaswag.acc_norm"]
    assert len([line for line in lines if line.startswith("tr9")]) == 6
    assert [line.split()[:2] for line in lines if "±0.0158*" in line] == [["tr9b-4M-large", "2000"]]


def test_on_a_terminal_each_run_has_a_table(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = call("table", "tr9a", "tr9b", "--tasks", "hellaswag").stdout.splitlines()
    assert [line for line in lines[:13] if not line.startswith(("1", "2", "3"))] == [
        "tr9a-4M-small", "step  tokens  hellaswag.acc_norm", "",
        "tr9b-4M-large", "step  tokens  hellaswag.acc_norm", "", "* best of its column; ± one standard error",
    ]  # fmt: skip


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_files_for_programs(call: Call, tmp_path: Path) -> None:
    for ending in ("csv", "json", "parquet"):
        done = call("table", "tr9a", "tr9b", "--output", tmp_path / f"x.{ending}")
        assert done.stderr == f"written: {tmp_path / f'x.{ending}'}\n"
    rows = rows_of((tmp_path / "x.csv").read_text())
    assert len(rows) == 2 * (3 * 2 + 2 * 3 + 1)
    assert rows[0] == {
        "run": "tr9a-4M-small", "step": "1000", "tokens": "2000000000", "label": "hellaswag", "part": "",
        "metric": "acc", "value": "0.26", "standard_error": str(share(0.26, 1000).standard_error), "chance": "0.25",
        "higher_is_better": "True", "examples": "1000", "shots": "0", "limit": "", "length": "", "version": "1",
        "definition": rows[0]["definition"], "through": "export", "checkpoint": rows[0]["checkpoint"], "state": "valid",
    }  # fmt: skip
    as_json = json.loads((tmp_path / "x.json").read_text())
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == as_json
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in as_json] == rows
    part = next(row for row in as_json if row["part"] == "law" and row["step"] == 3000)
    assert (part["value"], part["examples"], part["metric"]) == (0.25 + 0.3, 100, "acc")
    told = json.loads(call("table", "tr9a", "tr9b", "--json").stdout)
    assert told == {"results": as_json, "notes": [], "problems": []}
    only = json.loads(call("table", "tr9a", "--metric", "hellaswag.acc", "--json").stdout)["results"]
    assert {(row["label"], row["metric"]) for row in only} == {("hellaswag", "acc")}


def test_a_page(call: Call, tmp_path: Path) -> None:
    call("table", "tr9a", "--tasks", "hellaswag", "--output", tmp_path / "x.md")
    lines = (tmp_path / "x.md").read_text().splitlines()
    assert lines[:2] == ["| step | tokens | hellaswag.acc_norm |", "| ---: | ---: | ---: |"]
    assert lines[-1] == "- chance: hellaswag.acc_norm 0.25"


def test_the_file_that_bigscience_published(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "agg.json"
    call("table", "tr9a", "--aggregated", file)
    found = json.loads(file.read_text())
    assert found["checkpoints"] == [1000, 2000, 3000]
    assert found["tokens"] == [2 * 10**9, 4 * 10**9, 6 * 10**9]
    errors = [share(value, 1000).standard_error for value in (0.3, 0.42, 0.4)]
    assert found["results"]["hellaswag"] == {
        "acc": [0.26] * 3, "acc_stderr": [share(0.26, 1000).standard_error] * 3,
        "acc_norm": [0.3, 0.42, 0.4], "acc_norm_stderr": errors,
    }  # fmt: skip
    assert found["results"]["mmlu"]["acc"] == [0.3, None, 0.4]
    assert found["results"]["wiki.limit-8"] == {"perplexity": [None, None, 12.5]}
    call("table", "tr9a", "--tasks", "mmlu", "--parts", "--aggregated", file)
    assert json.loads(file.read_text())["results"]["mmlu.law"]["acc"] == [0.35, 0.55]
    done = call("table", "tr9a", "tr9b", "--aggregated", tmp_path / "two.json")
    assert (done.returncode, done.stderr.startswith("error: an aggregated file is of one run")) == (2, True)
    assert not (tmp_path / "two.json").exists()


def test_what_is_still_to_come_is_shown(call: Call, runs: Path) -> None:
    run = RunFolder(runs / "tr9a-4M-small")
    for step, label in ((2000, "mmlu"), (4000, "hellaswag"), (4000, "mmlu")):
        taken = claim(run, step, label)
        assert isinstance(taken, Claim)
        if label == "hellaswag":
            taken.fail("out of memory\x1b[2J")
    done = call("table", "tr9a", "--tasks", "hellaswag,mmlu")
    lines = done.stdout.splitlines()
    assert lines[2].split()[2:] == ["0.4200", "±0.0156*", "running"]
    assert lines[4].split()[2:] == ["failed", "running"]
    assert r"failed: tr9a-4M-small@4000, hellaswag: out of memory\x1b[2J" in lines
    rows = json.loads(call("table", "tr9a", "--json").stdout)["results"]
    assert [(row["step"], row["label"], row["value"]) for row in rows if row["state"] == "running"] == [
        (2000, "mmlu", None), (4000, "mmlu", None),
    ]  # fmt: skip


def mark_invalid(run: Path, step: int) -> None:
    path = evaluation_folder(RunFolder(run), step) / MANIFEST
    manifest = read_manifest(path)
    status = manifest.status.model_copy(update={"state": "invalid", "note": "wrong data"})
    write_manifest(path, manifest.model_copy(update={"status": status}))


def test_invalid_results_are_left_out_unless_they_are_asked_for(call: Call, runs: Path) -> None:
    mark_invalid(runs / "tr9a-4M-small", 2000)
    done = call("table", "tr9a", "--tasks", "hellaswag")
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["step", "1000", "3000"]
    assert "evaluations of step 2000 are invalid, and are left out (--invalid shows them)" in done.stdout
    assert "0.4000 ±0.0155*" in done.stdout
    done = call("table", "tr9a", "--tasks", "hellaswag", "--invalid")
    assert "0.4200 ±0.0156!" in done.stdout
    assert "0.4000 ±0.0155*" in done.stdout
    assert "! invalid" in done.stdout.splitlines()
    states = [row["state"] for row in json.loads(call("table", "tr9a", "--invalid", "--json").stdout)["results"]]
    assert (states.count("invalid"), states.count("valid")) == (2, 11)
    for step in (1000, 3000):
        mark_invalid(runs / "tr9a-4M-small", step)
    for words in ((), ("--tasks", "hellaswag")):
        done = call("table", "tr9a", *words)
        assert done.returncode == 2
        assert "evaluations of steps 1000, 2000, 3000 are invalid, and are left out (--invalid" in done.stderr


def test_folders_without_a_manifest_and_damaged_results_are_told(call: Call, runs: Path) -> None:
    folder = evaluation_folder(RunFolder(runs / "tr9a-4M-small"), 3000)
    (folder / MANIFEST).unlink()
    done = call("table", "tr9a")
    assert (done.returncode, "the evaluation of step 3000 is not sealed" in done.stdout) == (0, True)
    (folder / "mmlu.json").write_text("{}")
    done = call("table", "tr9a")
    assert done.returncode == 1
    assert done.stderr.startswith(f"passed over: {folder / 'mmlu.json'} is no result of an evaluation")
    assert "0.4000 ±0.0155" in done.stdout


def test_what_is_refused(call: Call, runs: Path, tmp_path: Path) -> None:
    (runs / "tr9c-4M-new" / "launches").mkdir(parents=True)
    for arguments, message in (
        (("table", "tr9c"), "tr9c-4M-new has no results of evaluations; make some: tools/evals run tr9c-4M-new"),
        (("table", "tr9a", "--tasks", "helaswag"), "nearest: hellaswag"),
        (("table", "tr9a", "tr9a-4M"), "tr9a is named twice"),
        (("table", "tr9a", "--output", tmp_path / "x.xls"), "give it one of .csv, .json, .parquet, .md"),
        (("plot", "tr9a", "--output", tmp_path / "x.csv"), "give it one of .svg, .png"),
        (("heatmap", "tr9a", "--base", "tr9b@1000", "--absolute"), "leave out one of them"),
        (("heatmap", "tr9a", "--base", "tr9b@1"), "step 1 of tr9b-4M-large was not evaluated; evaluated: 1000"),
    ):
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert message in done.stderr, arguments
    done = call("table", "tr9a", "tr9c")
    assert (done.returncode, "tr9c-4M-new: has no evaluation to show" in done.stdout) == (0, True)


def test_curves_in_a_file_and_on_a_terminal(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    done = call("plot", "tr9a", "tr9b", "--tasks", "hellaswag,mmlu", "--output", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"written: {file}\n")
    first = file.read_bytes()
    for expected in (">hellaswag.acc_norm<", ">mmlu.acc<", ">tr9b-4M-large<", ">chance 0.25<", ">tokens<"):
        assert expected in first.decode(), expected
    call("plot", "tr9a", "tr9b", "--tasks", "hellaswag,mmlu", "--output", file)
    assert file.read_bytes() == first
    lines = call("plot", "tr9a", "--tasks", "mmlu").stdout.splitlines()
    assert lines[0] == "mmlu.acc over steps; - chance 0.25"
    assert lines[1].split() == ["0.4", "o"]
    assert lines[-1] == "o tr9a-4M-small"


def test_a_map_of_parts(call: Call, tmp_path: Path) -> None:
    done = call("heatmap", "tr9a", "--tasks", "mmlu", "--base", "tr9b@1000", "--sort", "gain")
    assert [line.split() for line in done.stdout.splitlines()[:5]] == [
        ["tr9a-4M-small:", "mmlu.acc"], ["steps", "1000", "3000"], ["mmlu", "(+0.0)", "+10.0"],
        ["law", "(+0.0)", "+20.0"], ["anatomy", "(+0.0)", "(+0.0)"],
    ]  # fmt: skip
    assert "differences to tr9b-4M-large@1000, in percentage points" in done.stdout
    call("heatmap", "tr9a", "--tasks", "mmlu", "--output", tmp_path / "x.csv")
    rows = rows_of((tmp_path / "x.csv").read_text())
    assert [(row["part"], row["step"], row["value"], row["within_noise"]) for row in rows[-2:]] == [
        ("law", "1000", "0.35", "False"), ("law", "3000", "0.55", "False"),
    ]  # fmt: skip
    assert float(rows[-1]["shown"]) == pytest.approx(30)
    call("heatmap", "tr9a", "--tasks", "mmlu", "--output", tmp_path / "x.svg")
    assert ">+30.0<" in (tmp_path / "x.svg").read_text()


def test_a_base_that_is_invalid(call: Call, runs: Path) -> None:
    mark_invalid(runs / "tr9b-4M-large", 1000)
    done = call("heatmap", "tr9a", "--tasks", "mmlu", "--base", "tr9b@1000")
    assert (done.returncode, "marks this evaluation invalid" in done.stderr and "--invalid" in done.stderr) == (2, True)
    done = call("heatmap", "tr9a", "--tasks", "mmlu", "--base", "tr9b@1000", "--invalid")
    assert (done.returncode, "the base, is marked invalid" in done.stdout) == (0, True)


@pytest.mark.slow
def test_help_imports_neither_numpy_nor_pydantic() -> None:
    code = (
        "import sys; import tools.commands.evals.command_line\n"
        "print(sorted({'numpy', 'pydantic', 'matplotlib', 'pyarrow', 'torch', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
