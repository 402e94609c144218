"""Losses of several validation groups: numbers of different groups are never compared, whatever the best goes by."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.artefacts.chosen import best, loss_of, newest_group
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.search import Wanted, find
from megatron_patches.artefacts.marks import mark_verified
from megatron_patches.artefacts.retention import known_checkpoints, superfluous
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
from megatron_patches.errors import Missing
from tests.small_artefacts import RUN, make_checkpoint
from tools.commands.checkpoint.listing import best_line, groups_line, list_run
from tools.commands.runs.rollback_target import candidates, choose

RATES: dict[str, Any] = {"learning_rate": 0.0, "next_learning_rate": 0.0}


def of_groups(best_by: str, **losses: float) -> dict[str, Any]:
    """Facts of a checkpoint."""
    return {"best_by": best_by, "validation_losses": losses, "validation_loss": losses[best_by]}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """First by one unnamed group, then by `en`, then by `code`; on `code` step 30 is the best, on all numbers 10 is."""
    saved: dict[int, dict[str, Any]] = {
        10: {"validation_loss": 0.5},
        20: of_groups("en", en=1.0, code=3.0),
        30: of_groups("en", en=1.5, code=2.0),
        40: of_groups("code", en=1.25, code=2.5),
        50: {"best_by": "code"},
    }
    for step, facts in saved.items():
        make_checkpoint(tmp_path, step, **facts, **RATES)
    return RunFolder(tmp_path / RUN)


def test_the_best_is_told_by_the_group_that_the_newest_goes_by(run: RunFolder) -> None:
    found = best(run)
    assert (found.candidate.step, found.loss, found.group) == (30, 2.0, "code")
    assert choose(run, candidates(run, None), "best").step == 30
    make_checkpoint(run.path.parent, 60, best_by="en")
    assert (best(run).candidate.step, best(run).loss) == (20, 1.0)


def test_a_run_from_before_groups_had_names_goes_by_its_one_loss(tmp_path: Path) -> None:
    for step, loss in ((10, 2.0), (20, 3.0)):
        make_checkpoint(tmp_path, step, validation_loss=loss)
    found = best(RunFolder(tmp_path / RUN))
    assert (found.candidate.step, found.loss, found.group) == (10, 2.0, "validation")
    make_checkpoint(tmp_path, 30, **of_groups("validation", validation=2.5))
    assert best(RunFolder(tmp_path / RUN)).candidate.step == 10, "the unnamed group is the one named validation"


def test_none_is_the_best_by_a_group_that_nothing_was_measured_on(run: RunFolder) -> None:
    make_checkpoint(run.path.parent, 60, best_by="new", **RATES)
    with pytest.raises(Missing, match="has a validation loss on new on record; its whole ones are of steps 60, 50"):
        best(run)
    with pytest.raises(Missing, match="was validated on new, so none is the best: name a step; saved: 10 to 60"):
        choose(run, candidates(run, None), "best")


def test_a_run_keeps_the_best_by_the_group_it_goes_by_now(run: RunFolder) -> None:
    mark_verified(run.checkpoints / checkpoint_name(50), "a test")
    known = known_checkpoints(run)
    assert {each.step: each.validation_loss for each in known} == {10: None, 20: 3.0, 30: 2.0, 40: 2.5, 50: None}
    going = superfluous(known, CheckpointConfig(every_steps=10, keep_last=1, keep_best=1))
    assert [each.step for each in going] == [10, 20, 40]


def test_the_list_and_the_inventory_tell_losses_of_one_group(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    lines = list_run(run.checkpoints)
    assert [(each.step, each.validation_loss) for each in lines] == [
        (50, None), (40, 2.5), (30, 2.0), (20, 3.0), (10, None),
    ]  # fmt: skip
    assert lines[1].validation_losses == {"en": 1.25, "code": 2.5}
    told, problems = best_line(run, lines)
    assert told.startswith("best of the run: validation loss on code 2 at step 30; saved in step-0000000030")
    assert problems == []
    assert groups_line(lines) == "validated on 2 groups (en, code); --json has the losses of all"
    assert groups_line(lines[-1:]) == ""


def test_checkpoints_are_found_by_a_groups_loss(run: RunFolder, tmp_path: Path) -> None:
    def found(metric: str) -> list[int | None]:
        with open_catalogue(run.path.parent, tmp_path / "data") as catalogue:
            artefacts: list[Artefact] = find(catalogue, Wanted(metrics=[metric]), 10)[0]
            return [each.step for each in artefacts]

    assert found("validation_loss.code<2.75") == [30, 40]
    assert found("validation_loss.en<=1.25") == [20, 40]
    assert found("validation_loss<0.75") == [10]
    make_checkpoint(run.path.parent, 60, best_by="web", validation_losses={"web": 0.5}, validation_loss=0.5, **RATES)
    make_checkpoint(run.path.parent, 70, best_by="web", validation_losses={"en": 0.5}, **RATES)  # web's is not finite
    make_checkpoint(run.path.parent, 80, **of_groups("validation", validation=0.25))
    assert (found("validation_loss.web<1"), found("validation_loss.en<1")) == ([60], [70]), "of a single one too"
    assert (found("validation_loss<0.75"), found("validation_loss.validation<1")) == ([10, 60, 80], []), "unnamed"


ODD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("best_by", "validation_losses", "validation_loss"), ODD)))
def test_any_manifest_has_a_group_and_a_finite_loss_or_none(facts: dict[str, Any]) -> None:
    group = newest_group([facts])
    loss = loss_of(facts, group)
    assert isinstance(group, str) and (loss is None or json.loads(json.dumps(loss, allow_nan=False)) == loss)
