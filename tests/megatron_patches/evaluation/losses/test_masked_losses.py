"""Losses of an encoder in the engine: what training recorded, of tokens that are masked as validations mask them."""

from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.run_directory import start_launch
from tests.megatron_patches.evaluation.losses.test_losses import asked, folder_for, recorded, validate_launch
from tests.ranks import run_on_ranks
from tests.small_training import ENCODER, SmallData, overrides, train_launch

RAMP = ["--objective.probability={start: 0.5, end: 0.25, samples: 1000}"]


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of 4 steps, whose probability is far from the ramp's end, saved and validated after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    words = overrides(training__steps=4, checkpoint__every_steps=2, evaluation__every_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder, [*ENCODER, *RAMP, *words]))
    run_on_ranks(train_launch, 1, str(launch.directory))
    return launch.run


def losses_of_step_4(folder: Path, dataset: str) -> dict[str, Any]:
    """What one process finds, and what it says where it is to continue a text."""
    from megatron_patches.evaluation.losses.losses import losses
    from megatron_patches.generation.loaded_model import load_model, start_alone

    groups = start_alone()

    def model(length: int | None = None, texts: bool = False) -> Any:
        folders = checkpoints_with_weights(RunFolder(folder), 4)
        return load_model(folders, print, lambda: groups, length=length, texts=texts)

    usual, longer = model(), model(32)
    with pytest.raises(TrainyardError, match=r"was not trained to continue text \(masked LM, probability 0.5 to 0.25"):
        model(texts=True)
    return {
        "own": losses(usual, asked()),
        "dataset": losses(usual, asked("text", dataset=dataset)),
        "longer": losses(longer, asked("text", length=32, dataset=dataset)),
    }


@pytest.mark.slow
def test_in_one_process(trained: RunFolder, small_data: SmallData) -> None:
    (found,) = run_on_ranks(losses_of_step_4, 1, trained.path, str(small_data.folder / "encoder" / "text"))
    own, dataset, longer = (found[name] for name in ("own", "dataset", "longer"))
    assert own.metrics["loss"].value == pytest.approx(recorded(trained)[4, "validation"], rel=1e-6)
    assert 0.2 < own.examples / (10 * 16) < 0.3, "a fourth of the tokens, as at the ramp's end"
    assert longer.examples == pytest.approx(dataset.examples, rel=0.01)
    assert longer.metrics["loss"].value == pytest.approx(dataset.metrics["loss"].value, rel=0.02)
    assert len({each.definition for each in found.values()}) == 3


@pytest.mark.slow
def test_two_stages_find_what_training_recorded(trained: RunFolder) -> None:
    run_on_ranks(validate_launch, 2, str(folder_for(trained, (2, 4), pipeline=2)))
    problems: list[str] = []
    found = {each.step: each.results["validation"] for each in list_evaluations(trained, problems)}
    assert problems == []
    losses = {(step, "validation"): result.metrics["loss"].value for step, result in found.items()}
    assert losses == {key: pytest.approx(loss, rel=1e-6) for key, loss in recorded(trained).items()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--data.tokenizer=$DATA/tokenizer", "--data.path=$DATA/text"],
         ["has no mask token, and the objective needs it"]),
        (["--model.vocab_size=380"], ["has 384 ids, any of which objective masked_lm", "set model.vocab_size to 384"]),
    ],
)  # fmt: skip
def test_what_a_launch_refuses(
    change: list[str], told: list[str], small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    path = small_data.write(tmp_path / "tr900-tests", "tr900c-40K-encoder")
    given = [word.replace("$DATA", str(small_data.folder)) for word in [*ENCODER, *change]]
    with pytest.raises(TrainyardError) as refused:
        plan_run(path, given, LaunchTarget(None))
    for text in told:
        assert text in str(refused.value)
