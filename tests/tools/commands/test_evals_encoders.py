"""An encoder's evaluations from end to end: asked, listed, drawn, compared, and chosen by."""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.run_folder import RunFolder
from tests.command_line import Call, verb
from tests.megatron_patches.evaluation.encoders.tiny_encoder import NAME, TEXTS, save_encoder, write_word_task
from tests.ranks import run_on_ranks
from tools.commands.evals import command_line
from tools.commands.evals.running import job_array, this_machine, watching
from tools.commands.evals.running.options import Learning, Means, Questions
from tools.commands.evals.running.plan import Plan, Work
from tools.commands.inventory import command_line as inventory
from tools.run_files.checkpoint_reference import find_checkpoint

TASKS = "pseudo-perplexity:texts.txt,documents=pseudo-perplexity:texts.jsonl,glue-sst2:words"


def evaluate(run: str, folder: str, asked: Mapping[str, Any], announced: Mapping[str, str]) -> bool:
    """What the process of a checkpoint does."""
    from megatron_patches.evaluation.asked import Asked
    from megatron_patches.evaluation.one_checkpoint import OneCheckpoint
    from megatron_patches.evaluation.selection import candidate_at

    nothing: Callable[[Any], None] = lambda said: None  # noqa: E731
    candidate = candidate_at(Path(folder))
    return OneCheckpoint(RunFolder(Path(run)), candidate, Asked.of(asked), nothing, print, announced).evaluate()


def forked(plan: Plan, work: Work, announced: Mapping[str, str]) -> int:
    folders = str(plan.run.path), str(work.candidate.folder)
    return 0 if run_on_ranks(evaluate, 1, *folders, asdict(plan.asked), dict(announced))[0] else 1


@pytest.fixture
def yard(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two checkpoints of an encoder, of other weights, and files of tasks, where the commands are called."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    save_encoder(places, 4, model__decoder_bias="true")
    save_encoder(places, 8, model__decoder_bias="false")
    (places / "texts.txt").write_text(TEXTS[1])
    (places / "texts.jsonl").write_text("\n".join(f'{{"text": "{text}"}}' for text in TEXTS))
    write_word_task(places / "words", 60, 20)
    monkeypatch.chdir(places)
    monkeypatch.setattr(this_machine, "_run_child", forked)
    monkeypatch.setattr(watching, "end_by_term", lambda: None)
    return places


@pytest.mark.slow
def test_from_end_to_end(yard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    evals = verb(command_line, monkeypatch, capsys)
    done = evals("run", NAME, "--tasks", TASKS, "--frozen", "--pooling", "mean", "--epochs", 5)
    assert done.returncode == 0, done.stderr
    first, second = list_evaluations(RunFolder(yard / "runs" / NAME), [])
    assert set(first.results) == {"pseudo-perplexity", "documents", "glue-sst2"}
    assert {result.through for result in second.results.values()} == {"engine"}
    told = second.results["glue-sst2"].fine_tuning
    assert told is not None
    assert (told["frozen"], told["pooling"], told["epochs"]) == (True, "mean", 5)
    assert second.results["documents"].fine_tuning is None
    done = evals("table", NAME)
    assert "glue-sst2.acc" in done.stdout
    assert "documents.pseudo_perplexity" in done.stdout
    assert evals("plot", NAME, "--output", "curves.svg").returncode == 0
    assert (yard / "curves.svg").stat().st_size > 1000
    done = evals("compare", f"{NAME}@4", f"{NAME}@8", "--tasks", "glue-sst2,documents")
    assert done.returncode == 0, done.stderr
    assert "glue-sst2.acc" in done.stdout
    assert "McNemar" in done.stdout
    best = min((first, second), key=lambda each: each.results["documents"].metrics["pseudo_perplexity"].value)
    found = find_checkpoint(f"{NAME}@best:documents.pseudo_perplexity")
    assert found.name == f"step-{best.step:010d}"
    listed = verb(inventory, monkeypatch, capsys)("find", "--metric", "glue-sst2.acc>=0")
    assert f"{NAME}@4" in listed.stdout
    done = evals("run", NAME, "--tasks", "glue-sst2:words", "--frozen", "--epochs", 6)
    assert done.returncode == 2
    assert "of another definition: it was fine-tuned with other settings" in done.stderr


def test_a_job_asks_the_same() -> None:
    learning = Learning(frozen=True, epochs=4, learning_rate=3e-3, train_batch=8, pooling="mean", seeds=2)
    asked = Means().asked(Questions(["glue-sst2:words"]), learning)
    assert shlex.join(job_array.words_of(asked)) == (
        "--tasks glue-sst2:words --epochs 4 --learning-rate 0.003 --train-batch 8 --pooling mean --seeds 2 --frozen"
    )
    assert "--epochs" not in job_array.words_of(Means().asked(Questions(["glue-sst2:words"]), Learning()))


def test_the_list_of_formats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    evals: Call = verb(command_line, monkeypatch, capsys)
    listed = evals("tasks").stdout
    assert "pseudo-perplexity:FILE\n" in listed
    assert "glue-cola:FOLDER|DEV+TRAIN\n" in listed
    done = evals("tasks", "--write", "asked", "pseudo-perplexity:texts.txt")
    assert "pseudo-perplexity is for encoders" in done.stderr
