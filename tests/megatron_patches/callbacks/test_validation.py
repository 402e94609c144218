"""Validation on several groups, and of several measures: each is what it would be alone, on every layout."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides

UNTIL_4 = overrides(training__steps=4, schedule__decay_end=4, checkpoint__every_steps=4)
LAYOUTS = {
    "DP2": (2, overrides(parallel__zero_stage=1)),
    "PP2": (2, overrides(parallel__pipeline=2)),
}


def train_and_measure(launch_directory: str) -> dict[str, Any]:
    """Train with two groups in place of one; then measure parts of the first one and the whole, by two measures."""
    from data_tools.run_data import RunData
    from megatron_patches.callbacks.validation import Validation
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.objectives.batches import validation_micro_batches
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.run.layout import plan_layout
    from megatron_patches.run.reading import load_resolved
    from megatron_patches.training.train import build_trainer

    launch = Launch(Path(launch_directory))
    config = load_resolved(launch.config)
    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[config.training.precision])
    trainer, _ = build_trainer(config, launch, groups)
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
    [validation] = [callback for callback in trainer.callbacks if isinstance(callback, Validation)]
    validation.groups = {**validation.groups, "seen": data.sources[0].training.samples}
    trainer.fit()

    engine: Any = trainer.engine

    def measured(first: int, last: int) -> dict[str, tuple[float, float]]:
        samples: Any = [data.validation["validation"][number] for number in range(first, last)]
        objective, vocabulary = trainer.batches.objective, config.model.vocabulary
        micro_batches = validation_micro_batches(samples, objective, last - first, 2, vocabulary, groups)
        return {name: (tally.mean, tally.targets) for name, tally in engine.evaluate(micro_batches).items()}

    whole = measured(0, 13)
    engine.measures = {"share": lambda _, targets: targets[1].sum(), **engine.measures}
    found = {"whole": whole, "again": measured(0, 13), "parts": [measured(0, 6), measured(6, 13)]}
    trainer.train_step()  # what a pipeline's evaluation left behind is no hindrance
    trainer.batches.close()
    for callback in trainer.callbacks:
        callback.close()
    return found


@pytest.fixture(scope="module", params=LAYOUTS)
def trained(
    request: pytest.FixtureRequest, small_data: SmallData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Launch, list[dict[str, Any]]]:
    """The launch, and what each rank measured behind it."""
    ranks, arguments = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("validation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder, [*arguments, *UNTIL_4]))
        return launch, run_on_ranks(train_and_measure, ranks, str(launch.directory))


def test_each_group_has_its_record_and_the_first_one_is_the_checkpoints(
    trained: tuple[Launch, list[dict[str, Any]]],
) -> None:
    launch, _ = trained
    found = [event.facts for event in effective(read_events(launch.run.events), "validation")]
    assert [(each["step"], each["source"], each["targets"]) for each in found] == [
        (4, "validation", 160.0),
        (4, "seen", 160.0),
    ]
    first, second = (each["loss"] for each in found)
    saved = read_manifest(launch.run.checkpoints / "step-0000000004" / "manifest.json")
    assert saved.facts["validation_loss"] == first != second
    assert saved.facts["validation_losses"] == {"validation": first, "seen": second}
    lines = (launch.run.logs / "0001.log").read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines if " after step " in line] == [
        f"validation after step 4: loss validation={first:.4f} seen={second:.4f} (10 samples each)"
    ]


def test_tallies_of_parts_add_up_to_that_of_the_whole(trained: tuple[Launch, list[dict[str, Any]]]) -> None:
    from megatron_patches.objectives.tally import Tally

    _, ranks = trained
    for found in ranks:
        first, rest = (Tally(*part["loss"]) for part in found["parts"])
        both = first + rest
        assert both.mean == pytest.approx(found["whole"]["loss"][0], rel=1e-6)
        assert both.targets == found["whole"]["loss"][1] == 13 * 16


def test_a_second_measure_leaves_the_first_alone(trained: tuple[Launch, list[dict[str, Any]]]) -> None:
    _, ranks = trained
    assert json.dumps(ranks[0]) == json.dumps(ranks[1]), "every rank has the same numbers"
    again = ranks[0]["again"]
    assert list(again) == ["share", "loss"] and again["loss"] == ranks[0]["whole"]["loss"]
    assert again["share"] == (pytest.approx(1.0, rel=1e-6), 13 * 16)
