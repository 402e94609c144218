"""A run that is validated on three groups: each loss is that of a run that is validated on it alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_tools.run_data import RunData
from megatron_patches.artefacts.chosen import best
from megatron_patches.artefacts.manifest import Manifest, read_manifest
from megatron_patches.callbacks.wandb_log import earlier_steps
from megatron_patches.checkout import CHECKOUT
from megatron_patches.events.reading import Event, effective, read_events
from megatron_patches.events.tensorboard_files import rebuild_tensorboard
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

TRAINED = {"name": "text", "path": "{}/text", "range": "0:0.8"}
LATER = {"path": "{}/text", "range": "0.8:0.9"}
GROUPS: list[dict[str, Any]] = [
    {"name": "later", **LATER},
    {"name": "more", "path": "{}/more"},
    {"name": "blend", "sources": [{"name": "end", "path": "{}/text", "range": "0.9:", "weight": 3},
                                  {"name": "more", "path": "{}/more", "range": "0.5:1"}]},
]  # fmt: skip
NAMES = [group["name"] for group in GROUPS]
PACKED_GROUPS: list[dict[str, Any]] = [
    {"name": "answers", "path": "{}/pairs", "range": "0:0.5"},
    {
        "name": "both",
        "sources": [{"name": "answers", "path": "{}/pairs", "range": "0.5:1"}, {"name": "later", **LATER}],
    },
]
PACKS = [
    *overrides(data__samples="packs", data__sequence_length=128, evaluation__samples=7),
    *overrides(objective__reset_attention="true", objective__reset_positions="true"),
]
TWO_STEPS = overrides(
    training__steps=4, checkpoint__every_steps=2, evaluation="{every_steps: 2, samples: 13}", data__path="null",
    data__split="null",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A launch that is over."""

    launch: Launch

    @property
    def events(self) -> list[Event]:
        return read_events(self.launch.run.events)

    @property
    def losses(self) -> dict[tuple[int, str], float]:
        """By step and group."""
        found = [event.facts for event in effective(self.events, "validation")]
        return {(each["step"], each["source"]): each["loss"] for each in found}

    def saved(self, step: int) -> Manifest:
        return read_manifest(self.launch.run.checkpoints / f"step-{step:010d}" / "manifest.json")


def settings(folder: Path, groups: list[dict[str, Any]], *more: str) -> list[str]:
    """Overrides of a run on the small data."""
    sources, validation = (json.dumps(each).replace("{}", str(folder)) for each in ([TRAINED], groups))
    return [*TWO_STEPS, f"--data.sources={sources}", f"--data.validation={validation}", *more]


def train_all(launches: list[str]) -> None:
    for launch in launches:
        train_launch(launch)


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Runs on one process: `all` with the three groups, and one with each alone; `DP2` with all on two. The same on
    packs with other groups: `packs`, and `packs of` each.
    """
    folder, launches = tmp_path_factory.mktemp("groups"), {}
    named = {"all": GROUPS, "DP2": GROUPS, **{each["name"]: [each] for each in GROUPS}}
    packed = {"packs": PACKED_GROUPS, **{f"packs of {each['name']}": [each] for each in PACKED_GROUPS}}
    with pytest.MonkeyPatch.context() as patch:
        for name, groups in (named | packed).items():
            patch.setenv("TRAINYARD_RUNS", str(folder / name))
            more = ["--checkpoint.best_by=more"] if name == "all" else PACKS if name in packed else []
            config = small_data.run(folder, settings(small_data.folder, groups, *more))
            RunData(config.data, CHECKOUT, config.lengths).check(384, 32, 7)  # makes plans of packs, as a launch does
            launches[name] = start_launch(config)
        run_on_ranks(train_all, 1, [str(launches[name].directory) for name in launches if name != "DP2"])
        run_on_ranks(train_launch, 2, str(launches["DP2"].directory))
    return {name: Trained(launch) for name, launch in launches.items()}


def test_each_loss_is_that_of_a_run_with_this_group_alone(trained: dict[str, Trained]) -> None:
    alone = {key: loss for name in NAMES for key, loss in trained[name].losses.items()}
    assert trained["all"].losses == alone
    assert sorted(alone) == sorted((step, name) for step in (2, 4) for name in NAMES)
    assert len(set(alone.values())) == 6


def test_each_loss_on_packs_is_that_of_a_run_with_this_group_alone(trained: dict[str, Trained]) -> None:
    """Of answers alone in `answers`, of answers and texts in `both`."""
    alone = {key: loss for each in PACKED_GROUPS for key, loss in trained[f"packs of {each['name']}"].losses.items()}
    assert trained["packs"].losses == alone
    assert len(set(alone.values())) == 4


def test_two_ranks_find_the_same(trained: dict[str, Trained]) -> None:
    assert trained["DP2"].losses == pytest.approx(trained["all"].losses, rel=1e-6)


def test_checkpoints_have_all_losses_and_name_the_one_that_the_best_goes_by(trained: dict[str, Trained]) -> None:
    for run, group in (("all", "more"), ("DP2", "later")):
        losses, facts = trained[run].losses, trained[run].saved(4).facts
        assert facts["validation_losses"] == {name: losses[4, name] for name in NAMES}
        assert (facts["best_by"], facts["validation_loss"]) == (group, losses[4, group])
        found = best(trained[run].launch.run)
        assert (found.group, found.loss) == (group, min(losses[step, group] for step in (2, 4)))


def test_one_line_tells_a_validation(trained: dict[str, Trained]) -> None:
    launch, losses = trained["all"].launch, trained["all"].losses
    lines = [line[9:] for line in (launch.run.logs / "0001.log").read_text().splitlines() if " after step " in line]
    assert lines == [
        f"validation after step {step}: loss {' '.join(f'{name}={losses[step, name]:.4f}' for name in NAMES)} "
        "(13 samples each)"
        for step in (2, 4)
    ]
    assert " later after step 4: loss " in (trained["later"].launch.run.logs / "0001.log").read_text()


def test_each_group_has_a_curve(trained: dict[str, Trained]) -> None:
    """In TensorBoard, also where its file is written again from events, and in what Weights & Biases is given again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, losses = trained["all"].launch.run, trained["all"].losses
    expected = {f"validation/{name} loss": [losses[2, name], losses[4, name]] for name in NAMES}
    for again in (False, True):
        assert not again or rebuild_tensorboard(run, 4)
        board = EventAccumulator(str(run.tensorboard))
        board.Reload()
        curves = {tag: [each.value for each in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
        found = {tag: values for tag, values in curves.items() if tag.startswith("validation/")}
        assert found == {tag: pytest.approx(values, rel=1e-6) for tag, values in expected.items()}
    rewritten = dict(earlier_steps(run.events, 4))
    assert {tag: [rewritten[step][tag] for step in (2, 4)] for tag in expected} == expected


def test_the_launch_puts_on_record_what_it_reads(trained: dict[str, Trained]) -> None:
    (found,) = (event.facts for event in trained["all"].events if event.kind == "data")
    assert (found["step"], found["best_by"], found["planned_samples"]) == (0, "more", 32)
    (source,) = found["sources"]
    (dataset,) = source["datasets"]["named"]
    assert (source["name"], source["weight"], source["range"], source["planned_samples"]) == ("text", 1, "0:0.8", 32)
    assert dataset["path"].endswith("/text") and dataset["id"] in trained["all"].saved(4).parents
    assert [group["name"] for group in found["validation"]] == NAMES
    assert [each["weight"] for each in found["validation"][2]["sources"]] == [0.75, 0.25]
