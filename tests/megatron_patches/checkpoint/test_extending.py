"""A run that is extended or resumed with other settings: to the last bit what it would be otherwise."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.recorded_changes import CHANGES
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import run_directory, start_launch
from tests.ranks import RankFailed, run_on_ranks
from tests.small_engine import SmallEngine, Steps
from tests.small_training import SmallData, overrides, train_launch

NAME = "tr900a-28K-small"
CONSTANT = ["--schedule={name: constant, warmup: 2}", *overrides(training__steps=4, checkpoint__every_steps=2)]
LAYOUTS = {
    "one process": (1, overrides(training__precision="bf16")),
    "PP2": (2, overrides(parallel__pipeline=2, parallel__zero_stage=0)),
}


def train(config: RunConfig, ranks: int, runs: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    launch = start_launch(config)
    run_on_ranks(train_launch, ranks, str(launch.directory))
    return launch.run


def losses(run: RunFolder) -> dict[int, tuple[float, float]]:
    events = effective(read_events(run.events), "step")
    return {event.facts["step"]: (event.facts["loss"], event.facts["learning_rate"]) for event in events}


def stored(run: RunFolder, step: int) -> dict[str, str]:
    files = read_manifest(run.checkpoints / f"step-{step:010d}" / "manifest.json").files
    return {file.path: file.sha256 for file in files if file.path.endswith(".safetensors")}


def facts(run: RunFolder, step: int) -> Mapping[str, Any]:
    return read_manifest(run.checkpoints / f"step-{step:010d}" / "manifest.json").facts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extending_equals_a_run_that_was_to_be_so_long(
    layout: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To step 4 at a constant rate, extended to 6 and then to 8."""
    ranks, given = LAYOUTS[layout]

    def config(*extend_to: int) -> RunConfig:
        return small_data.run(tmp_path, [*given, *CONSTANT, f"--training.extend_to={list(extend_to)}"])

    whole = train(config(6, 8), ranks, tmp_path / "whole", monkeypatch)
    for ends in ((), (6,), (6, 8)):
        extended = train(config(*ends), ranks, tmp_path / "extended", monkeypatch)
    assert losses(extended) == losses(whole)
    assert stored(extended, 8) == stored(whole, 8)
    rates = [rate for _, rate in losses(whole).values()]
    assert rates[1:] == pytest.approx([1e-2, 1e-2, 1e-2, 5.5e-3, 1e-3, 5.5e-4, 1e-4])
    expected = [
        {"step": 4, "key": "training.extend_to", "before": [], "now": [6]},
        {"step": 6, "key": "training.extend_to", "before": [6], "now": [6, 8]},
    ]
    assert facts(extended, 8)[CHANGES] == expected and CHANGES not in facts(whole, 8)
    recorded = [event.facts for event in read_events(extended.events, ["change"])]
    assert recorded == expected


CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adamw": (
        {"weight_decay": 0.1, "gradient_clip": 0.05},
        {"weight_decay": 0.3, "gradient_clip": 0.5, "beta1": 0.5, "beta2": 0.6, "epsilon": 1e-4},
    ),
    "adamw-by-name": ({}, {"weight_decay_by_name": {"*.bias": 0.5}}),
    "sgd": ({"momentum": 0.9}, {"momentum": 0.5}),
    "lion": ({"weight_decay": 0.1}, {"weight_decay": 0.3, "beta1": 0.5, "beta2": 0.6}),
    "adafactor": ({}, {"decay_exponent": 0.5, "update_clip": 0.5, "epsilon": 1e-8}),
    "muon": (
        {"rest": {"learning_rate": 1e-2}},
        {"momentum": 0.5, "rest": {"learning_rate": 1e-2, "beta1": 0.5, "beta2": 0.6, "epsilon": 1e-4}},
    ),
}
"""an optimizer's settings before and after a resume"""


def with_state_of(before: SmallEngine, config: RunConfig) -> SmallEngine:
    """An engine of other settings that begins with the weights and moments of another one."""
    now = SmallEngine(config, before.groups)
    held = {(piece.name, piece.kind): piece.tensor for piece in before.engine.state()}
    for piece in now.engine.state():
        piece.tensor.copy_(held[piece.name, piece.kind])
    now.engine.load_counters({name: counter.item() for name, counter in before.engine.counters().items()})
    now.step = before.step
    return now


def continue_each(cases: dict[str, tuple[RunConfig, RunConfig]]) -> dict[str, list[Steps]]:
    """Both launches of each case; what engines that were never stored give for the steps of the second one."""
    from megatron_patches.parallel.process_groups import stop_process_groups

    found = {}
    for name, (before, now) in cases.items():
        for config in (before, now):
            train_launch(str(start_launch(config).directory))
        kept = SmallEngine(before)
        kept.train(3)
        changed = with_state_of(kept, now)
        found[name] = [changed.train(2)]
        unchanged = None
        if name == "adamw":  # by hand, in the engine that has the moments
            for group in kept.engine.optimizer.param_groups:  # type: ignore[attr-defined]
                group |= {"betas": (0.5, 0.6), "eps": 1e-4, "weight_decay": 3 * group["weight_decay"]}
            kept.engine.gradient_clip = 0.5  # type: ignore[attr-defined]
            found[name].append(kept.train(2))
        else:
            unchanged = kept.train(2)
        assert unchanged != found[name][0], "the change would not be seen"
        for each in (kept, changed):
            each.batches.close()
        stop_process_groups()
    return found


def test_changed_settings_of_the_optimizer_are_applied(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps after a resume are those of an optimizer that has the new settings and the old moments: no setting that
    was stored comes back."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    common = ["--schedule={name: constant}", *overrides(checkpoint__every_steps=1, evaluation="null")]

    def config(name: str, steps: int, settings: dict[str, Any]) -> RunConfig:
        optimizer = {"name": name.partition("-")[0], "learning_rate": 1e-2, **settings}
        given = [f"--optimizer={json.dumps(optimizer)}", f"--training.steps={steps}"]
        return small_data.run(tmp_path, [*common, *given], name=f"tr900a-28K-{name}")

    cases = {name: (config(name, 3, before), config(name, 5, before | now)) for name, (before, now) in CHANGED.items()}
    for name, found in run_on_ranks(continue_each, 1, cases)[0].items():
        run = run_directory(cases[name][1])
        events = effective(read_events(run.events), "step")[3:]
        seen = [(event.facts["loss"], event.facts["grad_norm"]) for event in events]
        assert [each == seen for each in found] == [True] * len(found), name
        keys = {each["key"] for each in facts(run, 5)[CHANGES]}
        inner = {f"optimizer.{key}" for key in CHANGED[name][1] if key != "rest"}
        assert keys == {"training.steps", *inner} | {key for key in keys if key.startswith("optimizer.rest.")}, name
    assert {"optimizer.rest.beta1", "optimizer.rest.beta2", "optimizer.rest.epsilon"} <= keys, "muon is the last"


def plan(tmp_path: Path, *settings: str) -> None:
    plan_run(tmp_path / "tr900-tests" / f"{NAME}.yaml", settings, LaunchTarget(nodes=None))


def test_a_jump_is_named_shown_and_recorded(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan that went wrong elsewhere: a "constant" phase that had decayed, and then another schedule."""
    decayed = ["--schedule={name: linear, warmup: 2, final_learning_rate: 1e-3}", *CONSTANT[1:]]
    runs = tmp_path / "runs"
    run = train(small_data.run(tmp_path, decayed), 1, runs, monkeypatch)
    longer = ["--schedule={name: cosine, warmup: 2}", *overrides(training__steps=8, checkpoint__every_steps=4)]
    with pytest.raises(TrainyardError, match=r"would jump: .*saved at 0\.001, the configuration gives 0\.00775 at"):
        plan(tmp_path, *longer)
    with pytest.raises(TrainyardError, match="names step 3, not this one"):
        plan(tmp_path, *longer, "--checkpoint.allow_rate_jump_at=3")
    named = [*longer, "--checkpoint.allow_rate_jump_at=4"]
    plan(tmp_path, *named)

    (run.checkpoints / "step-0000000004" / "optimizer-00000.safetensors").write_bytes(b"damaged")
    with pytest.raises(RankFailed, match=r"would jump: .*step-0000000002 was saved at 0\.01.*names step 4"):
        train(small_data.run(tmp_path, [*named, "--optimizer.learning_rate=2e-2"]), 1, runs, monkeypatch)
    shutil.rmtree(runs)

    train(small_data.run(tmp_path, decayed), 1, runs, monkeypatch)
    train(small_data.run(tmp_path, named), 1, runs, monkeypatch)
    assert losses(run)[4][1] == pytest.approx(1e-3) and losses(run)[5][1] == pytest.approx(5.5e-3)
    (jump,) = [each for each in facts(run, 8)[CHANGES] if each["key"] == "learning_rate"]
    assert (jump["step"], jump["before"], jump["now"]) == (4, pytest.approx(1e-3), pytest.approx(7.75e-3))
    with pytest.raises(TrainyardError, match=r"the run has ended: .*add --training\.extend_to N, N above 8 steps"):
        plan(tmp_path, *named)
    plan(tmp_path, *named[:-1], "--training.extend_to=9", "--schedule.final_learning_rate=1e-3",
         "--checkpoint.allow_rate_jump_at=8")  # fmt: skip
