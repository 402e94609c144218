"""Promise 6 for a launch: every mistake is one message with its remedy, exit code 2, and nothing written."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT
from megatron_patches.launch import plan
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, make_small_data, overrides, train_launch

NAME = "tr900a-28K-small"


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 12)


def swap_tokenizer(folder: Path) -> None:
    text = (folder / "tokenizer/tokenizer.json").read_text()
    (folder / "tokenizer/manifest.json").unlink()
    (folder / "tokenizer/tokenizer.json").write_text(text + " ")


BROKEN_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing data": (lambda folder: (folder / "text.idx").unlink(), "tools/preprocess"),
    "missing .bin": (lambda folder: (folder / "text.bin").unlink(), "text.bin"),
    "empty .bin": (lambda folder: cut(folder / "text.bin", 0), "text.bin"),
    "empty .idx": (lambda folder: cut(folder / "text.idx", 0), "text.idx"),
    "truncated .bin": (lambda folder: cut(folder / "text.bin", 2000), "text.bin"),
    "longer .idx": (lambda folder: grow(folder / "text.idx"), "text.idx"),
    "shorter .idx": (lambda folder: cut(folder / "text.idx", 500), "text.idx"),
    "no manifest": (lambda folder: (folder / "text.manifest.json").unlink(), "tools/dataset adopt"),
    "another tokenizer": (swap_tokenizer, "tokenizer"),
}
BAD_SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "unknown key": (["--training.micro_batch=2"], ["training.micro_batch", "micro_batch_size"]),
    "wrong type": (["--training.steps=many"], ["training.steps", "many"]),
    "heads": (
        overrides(parallel__tensor=3, model__vocab_size=387, model__ffn_size=96),
        ["attention_heads 4", "tensor 3"],
    ),
    "layers": (overrides(parallel__pipeline=5), ["4 blocks", "pipeline 5"]),
    "global batch": (overrides(training__micro_batch_size=3), ["global_batch_size 8", "micro_batch_size"]),
    "world size": (overrides(parallel__tensor=2, parallel__local_processes=3), ["3 processes", "2 or 4"]),
    "ids beyond the vocabulary": (overrides(model__vocab_size=300), ["token id", "model.vocab_size"]),
    "too few samples": (overrides(training__steps=5000), ["epochs", "data.max_epochs"]),
    "too few validation samples": (overrides(evaluation__samples=9999), ["evaluation.samples", "data.split"]),
    "fp16": (overrides(training__precision="fp16"), ["fp16", "bf16"]),
}


@pytest.fixture
def folder(small_data: SmallData, tmp_path: Path) -> Path:
    """A copy of the small data that a test may break."""
    copy = tmp_path / "data"
    shutil.copytree(small_data.folder, copy, ignore=shutil.ignore_patterns("documents"))
    return copy


def refused(
    folder: Path, arguments: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The message of a plan that must be refused, with nothing written."""
    SmallData(folder).run(runs.parent)
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # no GPU
    assert plan.main([str(runs.parent / "tr900-tests" / f"{NAME}.yaml"), *arguments, "--local"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and not runs.exists()
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err
    return printed.err


@pytest.mark.parametrize("case", BROKEN_DATA)
def test_broken_data(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, named = BROKEN_DATA[case]
    damage(folder)
    assert named in refused(folder, [], tmp_path / "runs", monkeypatch, capsys)


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, named = BAD_SETTINGS[case]
    message = refused(folder, arguments, tmp_path / "runs", monkeypatch, capsys)
    assert all(text in message for text in named), message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (overrides(model__ffn_size=96), ["model.ffn_size is 64 in the checkpoint and 96 now", "another run"]),
        (overrides(training__seed=8), ["training.seed is 7", "another run"]),
        (overrides(training__steps=16), ["learning rate would jump", "keep training.steps and set training.extend_to"]),
        (overrides(optimizer__learning_rate=2e-2), ["learning rate would jump", "allow_rate_jump_at 6"]),
        (
            overrides(optimizer__learning_rate=2e-2, checkpoint__allow_rate_jump_at=3),
            ["would jump", "checkpoint.allow_rate_jump_at names step 3, not this one"],
        ),
        (
            overrides(training__steps=6, schedule__decay_end=8, evaluation__every_steps=3),
            ["the run has ended", "step-0000000006 is of its last step", "--training.extend_to N, N above 6 steps"],
        ),
        (
            [*overrides(training__steps=4, evaluation__every_steps=2), *overrides(training__extend_to="[5]")],
            ["step-0000000006 is beyond the end of the run, which has 5 steps. Set training.extend_to to 6 or more"],
        ),
        (
            [*overrides(training__steps=4, evaluation__every_steps=2), *overrides(training__extend_by="[1]")],
            ["step-0000000006 is beyond the end of the run, which has 5 steps. Set training.extend_by to 2 or more"],
        ),
        (
            overrides(training__steps=5, schedule__decay_end=5, evaluation__every_steps=5),
            ["step-0000000006", "beyond", "Set training.steps to 6 or more"],
        ),
        (
            overrides(training__steps="null", training__samples=40, schedule__decay_end=5, evaluation__every_steps=5),
            ["step-0000000006", "beyond", "Set training.samples to 48 or more"],
        ),
        (
            overrides(training__steps="null", training__tokens=64 * 16 * 8),
            ["learning rate would jump", "optimizer.learning_rate and training.tokens; to train longer, keep"],
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_continued(
    arguments: list[str], named: list[str], small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    runs = tmp_path / "runs"
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    launch = start_launch(small_data.run(tmp_path))
    run_on_ranks(train_launch, 1, str(launch.directory))
    shutil.rmtree(launch.run.checkpoints / "step-0000000008")  # as if it had been killed after step 6
    run = str(tmp_path / "tr900-tests" / f"{NAME}.yaml")

    assert plan.main([run, *arguments, "--local"]) == 2
    message = capsys.readouterr().err
    assert all(text in message for text in named), message
    assert [path.name for path in launch.run.launches.iterdir()] == ["0001"]
    # what leaves weights, samples and learning rates alone may change
    longer = overrides(training__steps=16, schedule__decay_end=8, training__micro_batch_size=4)
    assert plan.main([run, *longer, "--local"]) == 0


def test_through_the_launcher(tmp_path: Path) -> None:
    """As a user meets it: exit code 2 and the message, from the command that would have started the run."""
    data = make_small_data(tmp_path / "data")
    data.run(tmp_path)
    done = subprocess.run(
        [CHECKOUT / "slurm/launch", tmp_path / "tr900-tests" / f"{NAME}.yaml", "--training.stepz", "3"],
        env={**os.environ, "TRAINYARD_RUNS": str(tmp_path / "runs"), "TRAINYARD_VENV": sys.prefix},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert "training.stepz" in done.stderr and "training.steps" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
