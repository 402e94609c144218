"""Losses in the engine: what training recorded, and what is computed by hand."""

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights
from megatron_patches.errors import Refused
from megatron_patches.evaluation.eval_only.asked import make_folder
from megatron_patches.evaluation.tasks.task import LossTask, TaskSettings
from megatron_patches.events.reading import read_events
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

GROUPS = "[{{name: en, path: {folder}/text, range: '0.8:1'}}, {{name: long, path: {folder}/more, range: '0:0.3'}}]"


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of 4 steps with rotary positions and two groups, saved and validated after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    words = overrides(
        model__position_embedding="rotary", data__validation=GROUPS.format(folder=small_data.folder),
        data__split="100", training__steps=4, checkpoint__every_steps=2, evaluation__every_steps=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder, words))
    run_on_ranks(train_launch, 1, str(launch.directory))
    return launch.run


def recorded(run: RunFolder) -> Mapping[tuple[int, str], float]:
    """Losses that training wrote down, by step and group."""
    found = {}
    for event in read_events(run.events, {"validation"}):
        source, loss = event.facts["source"], event.facts["loss"]
        assert isinstance(source, str) and isinstance(loss, float)
        found[int(event.facts["step"]), source] = loss
    return found


def asked(name: str = "validation", length: int | None = None, limit: int | None = None, **task: Any) -> LossTask:
    return LossTask(name, TaskSettings(limit=limit, length=length), **task)


def losses_of_step_4(folder: Path, dataset: str) -> dict[str, Any]:
    """What one process finds; all in one, since to import and to load takes longest."""
    from megatron_patches.evaluation.losses.losses import losses
    from megatron_patches.generation.loaded_model import load_model, start_alone

    groups = start_alone()

    def model(length: int | None = None) -> Any:
        folders = checkpoints_with_weights(RunFolder(folder), 4)
        return load_model(folders, print, lambda: groups, length=length, texts=False)

    usual, longer = model(), model(32)
    found = {
        "own": losses(usual, asked()),
        "again": losses(longer, asked()),
        "first": losses(usual, asked(limit=3)),
        "one": losses(usual, asked(groups=("long",))),
        "dataset": losses(usual, asked("more", dataset=dataset)),
        "longer": losses(longer, asked("more", length=32, dataset=dataset)),
    }
    with pytest.raises(Refused, match="reads 32 tokens at once, and the model was loaded for 16"):
        losses(usual, asked(length=32))
    with pytest.raises(Refused, match="lang is no validation group of the run; there are long, en"):
        losses(usual, asked(groups=("lang",)))
    return {**found, "by hand": by_hand(longer, dataset, 32), "by hand 16": by_hand(usual, dataset, 16)}


def by_hand(model: Any, dataset: str, length: int) -> list[float]:
    """Mean loss of each sample that a stream is cut into, from the file and plain softmax."""
    import torch

    from data_tools.datasets.indexed_dataset import IndexedDataset

    tokens = torch.from_numpy(IndexedDataset(Path(dataset)).tokens[:].astype("int64"))
    found = []
    for first in range(0, len(tokens) - length, length):
        window = tokens[first : first + length + 1]
        logits = model.logits(window[:-1].tolist())
        found.append(torch.nn.functional.cross_entropy(logits, window[1:]).item())
    return found


@pytest.mark.slow
def test_in_one_process(trained: RunFolder, small_data: SmallData) -> None:
    dataset = f"{small_data.folder}/more"
    (found,) = run_on_ranks(losses_of_step_4, 1, trained.path, dataset)
    known, own = recorded(trained), found["own"]
    assert {name: part.metrics["loss"].value for name, part in own.parts.items()} == {
        name: pytest.approx(known[4, name], rel=1e-6) for name in ("en", "long")
    }
    assert own.metrics["loss"].value == pytest.approx((known[4, "en"] + known[4, "long"]) / 2, rel=1e-6)
    assert own.metrics["perplexity"].value == pytest.approx(math.exp(own.metrics["loss"].value))
    assert (own.examples, own.parts["en"].examples, own.through, own.precision) == (320, 160, "engine", "fp32")
    assert [Path(file.name).name for file in own.data] == ["text", "more"]
    assert found["again"].metrics["loss"].value == pytest.approx(own.metrics["loss"].value, rel=1e-6)

    assert found["one"].metrics == own.parts["long"].metrics
    assert not found["one"].parts
    assert found["first"].parts["en"].examples == 48
    assert len({each.definition for name, each in found.items() if "hand" not in name and name != "again"}) == 5

    for name, expected in (("dataset", found["by hand 16"]), ("longer", found["by hand"])):
        metric = found[name].metrics["loss"]
        mean = sum(expected) / len(expected)
        spread = math.sqrt(sum((each - mean) ** 2 for each in expected) / (len(expected) - 1) / len(expected))
        assert metric.value == pytest.approx(mean, rel=1e-5)
        assert metric.standard_error == pytest.approx(spread, rel=1e-3)
        assert found[name].examples == len(expected) * (16 if name == "dataset" else 32)


def validate_launch(launch_directory: str, stops: bool = False) -> None:
    """One rank; where it stops, rank 1 was asked to before it began."""
    from megatron_patches.evaluation.eval_only.validation import validate
    from megatron_patches.run.run_directory import Launch

    if stops and os.environ["RANK"] == "1":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # as node.py does
        os.kill(os.getpid(), signal.SIGUSR1)
    validate(Launch(Path(launch_directory)))


def folder_for(run: RunFolder, steps: tuple[int, ...], **parallel: int) -> Path:
    """That of a launch with `--eval-only` on a layout."""
    config = load_resolved(run.config)
    layout = config.parallel.model_copy(update=parallel)
    folders = [checkpoints_with_weights(run, step)[0] for step in steps]
    return make_folder(run, config.model_copy(update={"parallel": layout}), folders, {})


@pytest.mark.slow
def test_eight_ranks_find_what_training_recorded(trained: RunFolder) -> None:
    """TP 2 x PP 2 x DP 2, both steps by one launch: the samples do not divide by micro-batch and ranks."""
    run_on_ranks(validate_launch, 8, str(folder_for(trained, (2, 4), tensor=2, pipeline=2)))
    problems: list[str] = []
    found = {each.step: each.results["validation"] for each in list_evaluations(trained, problems)}
    assert problems == []
    parts = {(step, name): part for step, result in found.items() for name, part in result.parts.items()}
    losses = {key: part.metrics["loss"].value for key, part in parts.items()}
    assert losses == {key: pytest.approx(loss, rel=1e-6) for key, loss in recorded(trained).items()}
    assert len(losses) == 4
    assert [result.tokens for result in found.values()] == [256, 512]


@pytest.mark.slow
def test_one_rank_that_is_asked_to_stop_stops_all(trained: RunFolder) -> None:
    folder = folder_for(trained, (4,))
    shelf = trained.path / "evals"
    before = sorted(shelf.rglob("*"))
    run_on_ranks(validate_launch, 2, str(folder), True)
    assert (folder / "stopped").exists()
    assert sorted(shelf.rglob("*")) == before
