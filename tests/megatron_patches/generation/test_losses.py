"""Losses of a run's checkpoint, on any layout: those that the run recorded itself; and models at other lengths."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.run_directory import start_launch
from tests.megatron_patches.generation.small_models import start
from tests.ranks import run_on_ranks
from tests.second_architecture.register import registered
from tests.second_architecture.run import train_two_stacks, two_stacks_run
from tests.small_training import SmallData, overrides, train_launch

SHORT = overrides(training__steps=2, checkpoint__every_steps=2, evaluation__every_steps=2, schedule__warmup=1)
PREFIXES = [
    "--objective={name: prefix_lm, loss_on_targets_only: false, reweight_by_position: false, reset_attention: true,"
    " label_smoothing: 0.1, z_loss: 1e-2}",
    *overrides(model__position_embedding="alibi", parallel__pipeline=2),
]
IDS = [5, 300, 17, 90, 41, 5, 8, 11, 250, 3, 77, 140, 9, 200, 31, 4, 60, 61, 62, 63, 64, 65, 66, 67]


@dataclass(frozen=True)
class Trained:
    """A checkpoint, and the loss that was recorded when it was saved."""

    folder: Path
    loss: float
    targets: float


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Runs of two steps: with prefixes and further terms of the loss in two stages, and of two stacks on two ranks."""
    folder = tmp_path_factory.mktemp("trained")
    found = {}
    with pytest.MonkeyPatch.context() as patch, registered():
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        two_stacks = two_stacks_run(small_data, folder, [*SHORT, *overrides(parallel__tensor=2)])
        runs = {
            "prefixes": (small_data.run(folder, [*SHORT, *PREFIXES]), train_launch),
            "two stacks": (two_stacks, train_two_stacks),
        }
        for name, (config, train) in runs.items():
            launch = start_launch(config)
            run_on_ranks(train, 2, str(launch.directory))
            *_, facts = (event.facts for event in effective(read_events(launch.run.events), "validation"))
            (checkpoint,) = list_checkpoints(RunFolder(launch.run.path).checkpoints)
            found[name] = Trained(checkpoint, facts["loss"], facts["targets"])
    return found


def loss_of(folder: Path, stages: int, texts: bool) -> tuple[float, float, list[Any]] | None:
    """Mean and targets of the run's validation; of a model of texts, logits at its own length, 24 and 8 places."""
    from megatron_patches.generation.loaded_model import load_model, obey
    from tests.second_architecture.register import register_all

    register_all()
    groups = start(int(os.environ["WORLD_SIZE"]), stages)
    if groups.rank:
        try:
            obey(groups)
        except RuntimeError:  # the first rank has ended
            return None
    layout = groups.layout

    def load(length: int | None) -> Any:
        return load_model([folder], print, lambda: groups, layout.tensor, stages, length=length, texts=texts)

    model = load(None)
    loss, targets = validated(model)
    model.close()
    logits = []
    for length in (None, 24, 8) if texts else ():
        model = load(length)
        logits.append(model.logits(IDS[: model.window]).tolist())
        model.close()
    return loss, targets, logits


def validated(model: Any) -> tuple[float, float]:
    from data_tools.run_data import RunData
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.objectives.batches import validation_micro_batches
    from megatron_patches.objectives.build import build_objective

    config = model.config
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
    objective = build_objective(
        config.objective, config.training.seed, data.end_of_document(config.document_ends_needed_by)
    )
    (samples,) = data.validation.values()
    batches = validation_micro_batches(
        samples, objective, config.evaluation.samples, 3, config.model.vocabulary, model.ranks.groups
    )
    loss, weights = sum(model.ranks.sample_sums(batch).sum(0) for batch in batches).tolist()
    return loss / weights, batches[0].targets


@pytest.mark.parametrize(("name", "tensor", "stages"), [("prefixes", 2, 2), ("two stacks", 1, 1), ("two stacks", 2, 2)])
def test_the_loss_is_the_one_that_was_recorded(
    trained: dict[str, Trained], name: str, tensor: int, stages: int
) -> None:
    """Without label smoothing and z-loss, as a validation has it."""
    run = trained[name]
    loss, targets, _ = run_on_ranks(loss_of, tensor * stages, run.folder, stages, False)[0]
    assert (loss, targets) == (pytest.approx(run.loss, rel=1e-6), run.targets)


def test_other_lengths_change_no_place_that_both_have(trained: dict[str, Trained]) -> None:
    """ALiBi's, in one process and in stages: without a prefix a place sees those before it alone."""
    import torch

    run = trained["prefixes"]
    *_, alone = run_on_ranks(loss_of, 1, run.folder, 1, True)[0]
    *_, staged = run_on_ranks(loss_of, 2, run.folder, 2, True)[0]
    own, longer, shorter = map(torch.tensor, alone)
    assert [len(each) for each in (own, longer, shorter)] == [16, 24, 8]
    torch.testing.assert_close(longer[:16], own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shorter, own[:8], rtol=1e-5, atol=1e-5)
    for one, two in zip(alone, staged, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(two), rtol=1e-5, atol=1e-5)
