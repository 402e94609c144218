"""The plan: what it derives, what it refuses, and that it writes nothing until everything is known to be right."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.text.tokenizer_training import train_bpe
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.facts import LaunchTarget, processes_per_node
from megatron_patches.launch.plan import main, plan_run, summary
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.reading import load_resolved, load_run
from tests.small_run import SMALL_RUN, write_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 100 documents, its tokenizer of 320 ids, and another tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        json.dumps({"text": f"document {number} is about the number {number * 37} and no other"})
        for number in range(100)
    ]
    (folder / "text.jsonl").write_text("\n".join(rows))
    train_bpe([folder / "text.jsonl"], folder / "tokenizer", 320)
    train_bpe([folder / "text.jsonl"], folder / "other", 300)
    preprocess(PreprocessRequest([folder / "text.jsonl"], folder / "text", folder / "tokenizer", append_eod=True))
    preprocess(PreprocessRequest([folder / "text.jsonl"], folder / "endless", folder / "tokenizer"))
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def run(tmp_path: Path, data: Path, runs: Path) -> Path:
    return write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml", SMALL_RUN.replace("data/", f"{data}/"))


def test_a_local_plan(run: Path, runs: Path) -> None:
    plan = plan_run(run, ["--parallel.tensor", "2"], LaunchTarget(nodes=None))
    assert (plan.nodes, plan.processes_per_node, plan.layout) == (1, 2, Layout(tensor=2, pipeline=1, data=1))
    assert plan.directory.path == runs / "tr8-1K-base"
    assert plan.data.planned_samples == 80
    assert not runs.exists()


def test_the_summary_says_what_will_happen(run: Path) -> None:
    text = summary(plan_run(run, ["--parallel.local_processes", "2"], LaunchTarget(nodes=None)))
    for expected in (
        "tr8-1K-base (tr8-base)",
        "why              tests",
        "parameters       18,400",
        "640 in 10 steps of 64",
        "0 to 0.0006 in 2 steps, cosine to 6e-05 at step 10",
        "2 processes = tensor 1 x pipeline 1 x data 2, ZeRO 1",
        "8 samples = micro-batch 2 x accumulation 2 x data 2",
        "epochs of",
    ):
        assert expected in text


def test_the_summary_is_folded_on_a_terminal_and_whole_in_a_pipe(run: Path) -> None:
    plan = plan_run(run, [], LaunchTarget(nodes=None))
    assert "\n" not in summary(plan).partition("training data    ")[2].partition("\nvalidation data")[0]
    folded = summary(plan, 80).splitlines()
    paths = str(plan.directory.path)  # no name is broken
    assert all(len(line) <= 80 or paths in line for line in folded) and len(folded) > len(summary(plan).splitlines())


def test_a_slurm_plan(run: Path) -> None:
    plan = plan_run(run, ["--parallel.tensor=2"], LaunchTarget(nodes=2, gpus_per_node=4))
    assert (plan.nodes, plan.processes_per_node, plan.layout.world_size) == (2, 4, 8)
    assert plan.layout.data == 4


def test_processes_per_node(run: Path) -> None:
    usual = load_run(run, ["--parallel.tensor", "2", "--parallel.pipeline", "2"])
    told = load_run(run, ["--parallel.processes_per_node", "3", "--parallel.local_processes", "5"])
    assert processes_per_node(usual, LaunchTarget(nodes=None)) == 4
    assert processes_per_node(told, LaunchTarget(nodes=None)) == 5
    assert processes_per_node(told, LaunchTarget(nodes=2)) == 3
    assert processes_per_node(told, LaunchTarget(nodes=2, gpus_per_node=8)) == 8
    with pytest.raises(TrainyardError, match=r"no GPUs .* add --parallel.processes_per_node N"):
        processes_per_node(usual, LaunchTarget(nodes=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("--model.layer 3 --local", "nearest: model.layers"),
        ("--training.steps many --local", "is not a whole number"),
        ("--parallel.tensor 3 --local", "nearest parallel.tensor that works: 2 or 4"),
        ("--parallel.pipeline 5 --local", "use at most 4"),
        ("--parallel.local_processes 3 --local", "nearest global_batch_size: 6 or 12"),
        ("--parallel.tensor 2 --nodes 1 --gpus-per-node 3", "nearest number of processes: 2 or 4"),
        ("--nodes 2", "add --parallel.processes_per_node N"),
        ("--data.path none --local", "tools/preprocess"),
        ("--data.tokenizer DATA/other --local", "was made with tokenizer"),
        (
            "--data.path DATA/endless --objective '{name: causal, reset_positions: true}' --local",
            "objective.reset_positions: true must see where documents end, and dataset DATA/endless was made without",
        ),
        ("--model.vocab_size 100 --local", "model.vocab_size 100 has ids up to 99"),
        ("--training.steps 1000 --local", "data.max_epochs"),
        ("--evaluation '{every_steps: 2, samples: 9999}' --local", "evaluation.samples is 9,999"),
        ("--evaluation '{every_steps:' --local", "--evaluation"),
        ("oddity --local", "'oddity' is not an override"),
    ],
)
def test_bad_input(
    run: Path, runs: Path, data: Path, capsys: pytest.CaptureFixture[str], settings: str, message: str
) -> None:
    assert main([str(run), *shlex.split(settings.replace("DATA", str(data)))]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message.replace("DATA", str(data)) in captured.err
    assert not runs.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--local", "--training.seed", "7", "--data.max_epochs=2"],
        ["--training.seed", "7", "--local", "--data.max_epochs=2"],
        ["--training.seed", "7", "--data.max_epochs", "2", "--local"],
    ],
)
def test_overrides_and_options_in_any_order(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([str(run), *arguments]) == 0
    config = load_resolved(Path(json.loads(capsys.readouterr().out)["launch_directory"]) / "config.yaml")
    assert (config.training.seed, config.data.max_epochs) == (7, 2)


@pytest.mark.parametrize("arguments", [[], ["--local", "--nodes", "2"], ["--nodes", "two"]])
def test_no_place_or_two(run: Path, runs: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(run), *arguments])
    assert ended.value.code == 2
    assert not runs.exists()


def run_module(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megatron_patches.launch.plan", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def test_the_command_line(run: Path, runs: Path) -> None:
    done = run_module(run, "--why", "two words", "--nodes", "2", "--gpus-per-node", "1")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    launch = runs / "tr8-1K-base" / "launches" / "0001"
    assert json.loads(done.stdout) == {
        "run": "tr8-1K-base",
        "run_directory": str(runs / "tr8-1K-base"),
        "launch": "0001",
        "launch_directory": str(launch),
        "processes_per_node": 1,
        "nodes": 2,
        "world_size": 2,
        "afterwards": [],
    }
    assert load_resolved(launch / "config.yaml").why == "two words"
    assert "two words" in done.stderr


@pytest.mark.parametrize("place", [{"nodes": None}, {"nodes": 2, "gpus_per_node": 1}])
def test_fp16_needs_a_gpu(run: Path, place: dict[str, Any]) -> None:
    settings = ["--training.precision", "fp16"]
    with pytest.raises(TrainyardError, match=r"fp16 needs a GPU, and this machine has none.*use bf16 or fp32"):
        plan_run(run, settings, LaunchTarget(**place, gpu=False))
    assert plan_run(run, settings, LaunchTarget(**place, gpu=True)).config.training.precision == "fp16"


def test_fp8_needs_gpus_that_have_it(run: Path) -> None:
    """By their names; a GPU that is not listed is asked by the ranks."""
    settings = ["--training.precision", "bf16", "--training.fp8", "tensorwise", "--training.micro_batch_size", "2"]
    settings += ["--model.hidden_size", "16", "--model.ffn_size", "64", "--data.sequence_length", "8"]
    older = LaunchTarget(nodes=None, gpu_models=["NVIDIA A100-SXM4-80GB", "NVIDIA H200"])
    with pytest.raises(TrainyardError, match=r"this machine has A100-80GB, .*--training\.fp8 none"):
        plan_run(run, settings, older)
    for models in (["NVIDIA H200", "an unlisted one"], []):
        assert "multiplied in float8" in summary(plan_run(run, settings, LaunchTarget(nodes=None, gpu_models=models)))


def test_the_command_line_refuses_without_a_traceback(run: Path, runs: Path) -> None:
    done = run_module(run, "--model.layer", "3", "--local")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command line: model.layer is not a known key; nearest: model.layers\n"
    assert not runs.exists()


def test_a_rehearsal_on_the_command_line(run: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--training.steps", "12", "--rehearse", "4", "--checkpoint.every_steps=6", "--local"]
    assert main([str(run), *given]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run_directory"] == str(runs / "tr8-1K-base-rehearsal-1") and not (runs / "tr8-1K-base").exists()
    assert told["afterwards"][2:] == [
        told["launch_directory"], str(run), "12", "--training.steps", "12", "--checkpoint.every_steps=6",
    ]  # fmt: skip
    config = load_resolved(Path(told["launch_directory"]) / "config.yaml")
    assert (config.training.steps, config.checkpoint.every_steps) == (4, 2)


@pytest.mark.parametrize("words", [["--rehearse"], ["--rehearse", "some"], ["--rehearse=0"], ["--rehearse", "10"]])
def test_a_rehearsal_of_no_number_of_steps_is_refused_without_a_usage_line(
    run: Path, runs: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([str(run), "--local", *words]) == 2
    assert capsys.readouterr().err.startswith("error: --rehearse") and not runs.exists()
