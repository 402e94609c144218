"""Promise 1: the layout does not change the result.

In fp32 at dropout 0, losses and gradient norms agree with the single process: relative difference under 1e-5 in the
first 3 steps and under 1e-4 at step 20. The clip is far below the norm; SGD shows what AdamW hides (gradients wrong by
a factor).
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor

from megatron_patches.config import RunConfig
from megatron_patches.events import effective, read_events
from megatron_patches.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

STEPS = 20
OPTIMIZERS = {
    "adamw": [],
    # the velocity and a rate of 1 make the norm of step 20 depend on every earlier gradient
    "sgd": ["--optimizer={name: sgd, learning_rate: 1.0, momentum: 0.9, weight_decay: 0.01, gradient_clip: 0.05}",
            "--schedule.final_learning_rate=0.1"],
}  # fmt: skip
LAYOUTS = {
    "DP2": (2, overrides(parallel__zero_stage=0)),
    "DP2 ZeRO-1": (2, overrides(parallel__zero_stage=1)),
    "TP2": (2, overrides(parallel__tensor=2, parallel__zero_stage=0)),
    "PP2": (2, overrides(parallel__pipeline=2, parallel__zero_stage=0)),
    "TP2 PP2": (4, overrides(parallel__tensor=2, parallel__pipeline=2, parallel__zero_stage=0)),
    "TP2 DP2 ZeRO-1": (4, overrides(parallel__tensor=2, parallel__zero_stage=1)),
    "PP2 DP2 ZeRO-1": (4, overrides(parallel__pipeline=2, parallel__zero_stage=1)),
    "accumulation 4": (1, overrides(parallel__zero_stage=0)),
    "ZeRO-1, one rank": (1, overrides(parallel__zero_stage=1, training__micro_batch_size=4)),
}


def record_steps(config: RunConfig, steps: int) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step on this rank, through engine, data and schedule of a run."""
    import os

    from data_tools.run_data import RunData
    from megatron_patches.engine.build import PRECISIONS, build_engine
    from megatron_patches.layout import plan_layout
    from megatron_patches.optim.schedule import learning_rate
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.run_directory import CHECKOUT
    from megatron_patches.train import training_batches

    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[config.training.precision])
    randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
    engine = build_engine(config, groups, randomness)
    batches = training_batches(config, RunData(config.data, CHECKOUT), groups)
    seen = []
    for step in range(1, steps + 1):
        randomness.start_step(step)
        loss = engine.forward_backward(batches.at((step - 1) * config.training.global_batch_size))
        norm = engine.grad_norm()
        engine.step(learning_rate(config.schedule, config.optimizer.learning_rate, steps, step), norm)
        seen.append((loss.item(), norm.item()))
    batches.close()
    return seen


@pytest.fixture(scope="module")
def single_process(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The reference: one process, one micro-batch a step."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def reference(optimizer: str) -> list[tuple[float, float]]:
        words = [*OPTIMIZERS[optimizer], *overrides(training__micro_batch_size=8, parallel__zero_stage=0)]
        return run_on_ranks(record_steps, 1, small_data.run(folder, words), STEPS)[0]

    return reference


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_change_the_result(
    layout: str,
    optimizer: str,
    single_process,
    small_data: SmallData,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    ranks, words = LAYOUTS[layout]
    expected = single_process(optimizer)
    assert min(norm for _, norm in expected) > 4 * 0.05, "the clip does not act"
    assert expected[0][0] - expected[-1][0] > 0.2, "nothing is learned"
    for found in run_on_ranks(record_steps, ranks, small_data.run(tmp_path, [*OPTIMIZERS[optimizer], *words]), STEPS):
        assert _relative(found[:3], expected[:3]) < 1e-5
        assert _relative(found[-1:], expected[-1:]) < 1e-4


def record_steps_with_few_targets(config: RunConfig, steps: int) -> list[tuple[float, float]]:
    """As `record_steps`, but only every label divisible by 5 counts: ranks and micro-batches differ in how many."""
    from megatron_patches import batches
    from megatron_patches.objectives.causal import causal_micro_batch
    from megatron_patches.objectives.micro_batch import MicroBatch

    def few_targets(windows: Tensor) -> MicroBatch:
        whole = causal_micro_batch(windows)
        return replace(whole, weights=whole.weights * (whole.labels % 5 == 0))

    batches.causal_micro_batch = few_targets  # type: ignore[assignment]
    return record_steps(config, steps)


@pytest.mark.parametrize("layout", ["DP2 ZeRO-1", "PP2", "accumulation 4", "PP2 DP2 ZeRO-1"])
def test_gradients_are_normalised_by_the_global_count_of_targets(
    layout: str, small_data: SmallData, tmp_path: Path
) -> None:
    words = [*OPTIMIZERS["sgd"], *overrides(training__micro_batch_size=8, parallel__zero_stage=0)]
    expected = run_on_ranks(record_steps_with_few_targets, 1, small_data.run(tmp_path, words), 5)[0]
    ranks, words = LAYOUTS[layout]
    config = small_data.run(tmp_path, [*OPTIMIZERS["sgd"], *words])
    found = run_on_ranks(record_steps_with_few_targets, ranks, config, 5)[0]
    assert _relative(found, expected) < 1e-5
    assert found != run_on_ranks(record_steps, ranks, config, 5)[0], "the weights are not used"


@pytest.mark.parametrize("layout", ["DP2 ZeRO-1", "PP2", "TP2 PP2"])
def test_validation_is_over_the_same_samples(
    layout: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 samples do not divide by 2 ranks x micro-batches of 2: rows of weight 0 fill up."""
    found = {}
    for name, (ranks, words) in {"one": (1, []), layout: LAYOUTS[layout]}.items():
        monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / name))
        launch = start_launch(small_data.run(tmp_path, words))
        run_on_ranks(train_launch, ranks, str(launch.directory))
        validations = effective(read_events(launch.run.events), "validation")
        found[name] = [(event.facts["step"], event.facts["loss"]) for event in validations]
    assert [step for step, _ in found["one"]] == [4, 8]
    assert _relative(found[layout], found["one"]) < 1e-5


def test_bf16_stays_close_to_fp32(small_data: SmallData, tmp_path: Path) -> None:
    """Weights of 8 bits: losses within a hundredth, on every kind of engine; masters keep small updates."""
    exact = run_on_ranks(record_steps, 1, small_data.run(tmp_path), STEPS)[0]
    for ranks, words in (
        (1, overrides(parallel__zero_stage=0)),
        (2, overrides(parallel__zero_stage=1)),
        (4, overrides(parallel__pipeline=2, parallel__zero_stage=1)),
    ):
        config = small_data.run(tmp_path, [*words, "--training.precision=bf16"])
        found = run_on_ranks(record_steps, ranks, config, STEPS)[0]
        assert _relative([(loss,) for loss, _ in found], [(loss,) for loss, _ in exact]) < 1e-2
        assert found != exact


def _relative(found: list[tuple[float, ...]], expected: list[tuple[float, ...]]) -> float:
    """Largest relative difference of two lists of steps."""
    pairs = [pair for ours, theirs in zip(found, expected, strict=True) for pair in zip(ours, theirs, strict=True)]
    return max(abs(a - b) / abs(b) for a, b in pairs)
