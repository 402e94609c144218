"""Promise 1: the layout does not change the result.

In fp32 at dropout 0, losses and gradient norms agree with the single process: relative difference under 1e-5 in the
first 3 steps and under 1e-4 at step 20. The clip is far below the norm; SGD shows what AdamW hides (gradients wrong by
a factor). The processes of a layout live once for all that trains on it. Every architecture meets every way to divide a
model, and every optimizer every way to divide its state; `python -m tests.torture.layouts` has all combinations.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_engine import Steps, record_all, record_steps, relative
from tests.small_training import ENCODER, SmallData, overrides, train_launch

STEPS = 20
# three ranks can share 12 samples; a rank has two micro-batches where the layout does not say another size
BATCH = overrides(training__global_batch_size=12, training__micro_batch_size=6)
ARCHITECTURES = {
    "GPT-2": [],
    "BLOOM": overrides(model__position_embedding="alibi", model__embedding_norm="true"),
    "Llama": overrides(
        model__position_embedding="rotary", model__norm="rmsnorm", model__norm_bias="false",
        model__activation="swiglu", model__key_value_heads=2, model__tied_head="false",
        model__attention_bias="false", model__mlp_bias="false",
    ),
    "prefix-LM": ["--objective={name: prefix_lm, reset_attention: true}"],
    "NeoBERT": ENCODER,
}  # fmt: skip
OPTIMIZERS = {
    "adamw": [],
    # the velocity and a rate of 1 make the norm of step 20 depend on every earlier gradient
    "sgd": ["--optimizer={name: sgd, learning_rate: 1.0, momentum: 0.9, weight_decay: 0.01, gradient_clip: 0.05}",
            "--schedule.final_learning_rate=0.1"],
}  # fmt: skip
ONE = overrides(training__micro_batch_size=12, parallel__zero_stage=0)
# A step has two micro-batches; under tensor parallelism alone one, under pipelines alone one more than stages.
LAYOUTS = {
    # Llama's 2 heads of keys are on 2 ranks each
    "TP4": (4, overrides(training__micro_batch_size=12, parallel__tensor=4, parallel__zero_stage=0)),
    "PP2": (2, overrides(training__micro_batch_size=4, parallel__pipeline=2, parallel__zero_stage=0)),
    "PP3": (
        3,
        overrides(training__micro_batch_size=3, parallel__pipeline=3, parallel__zero_stage=0),
    ),  # 2, 1, 1 blocks
    "TP2 PP2": (4, overrides(parallel__tensor=2, parallel__pipeline=2, parallel__zero_stage=0)),
    "TP2 DP2 ZeRO-1": (4, overrides(parallel__tensor=2, parallel__zero_stage=1)),
    "DP2 ZeRO-2": (2, overrides(training__micro_batch_size=3, parallel__zero_stage=2)),
    "DP2 ZeRO-3": (2, overrides(training__micro_batch_size=3, parallel__zero_stage=3)),
    "DP3 ZeRO-1": (3, overrides(training__micro_batch_size=2, parallel__zero_stage=1)),
    "TP2 sequence": (2, overrides(parallel__tensor=2, parallel__sequence_parallel="true", parallel__zero_stage=0)),
    "TP2 PP2 DP2": (
        8,
        overrides(training__micro_batch_size=3, parallel__tensor=2, parallel__pipeline=2, parallel__zero_stage=1),
    ),
}
ALL = [(architecture, optimizer) for architecture in ARCHITECTURES for optimizer in OPTIMIZERS]
EACH = [(architecture, "sgd") for architecture in ARCHITECTURES]
TRAINED = {
    "TP4": EACH,
    "PP2": [("GPT-2", "adamw"), ("prefix-LM", "sgd")],
    "PP3": EACH,
    "TP2 PP2": [("Llama", "adamw"), ("BLOOM", "sgd"), ("NeoBERT", "adamw")],
    "TP2 DP2 ZeRO-1": [("GPT-2", "adamw"), ("Llama", "sgd")],
    "DP2 ZeRO-2": [("GPT-2", "adamw"), ("prefix-LM", "sgd")],
    "DP2 ZeRO-3": [("GPT-2", "sgd"), ("Llama", "adamw"), ("NeoBERT", "sgd")],
    "DP3 ZeRO-1": [("GPT-2", "adamw"), ("BLOOM", "sgd")],
    "TP2 sequence": EACH,
    "TP2 PP2 DP2": [("GPT-2", "adamw"), ("Llama", "sgd")],
}
"""what trains on each layout"""
MORE_LAYOUTS = {  # of one architecture and optimizer
    "TP2": (2, overrides(training__micro_batch_size=12, parallel__tensor=2, parallel__zero_stage=0)),
    "TP2 PP2 sequence": (
        4, overrides(training__micro_batch_size=3, parallel__tensor=2, parallel__pipeline=2,
                     parallel__sequence_parallel="true", parallel__zero_stage=0)
    ),
    "DP2": (2, overrides(training__micro_batch_size=3, parallel__zero_stage=0)),
    "DP2 ZeRO-1": (2, overrides(training__micro_batch_size=3, parallel__zero_stage=1)),
    "PP2 DP2 ZeRO-1": (4, overrides(training__micro_batch_size=2, parallel__pipeline=2, parallel__zero_stage=1)),
    "PP3 by parameters": (
        3, overrides(training__micro_batch_size=4, parallel__pipeline=3, parallel__pipeline_partition="parameters")
    ),
    "accumulation 6": (1, overrides(training__micro_batch_size=2, parallel__zero_stage=0)),
    "ZeRO-1, one rank": (1, overrides(parallel__zero_stage=1, training__micro_batch_size=4)),
    "ZeRO-3, one rank": (1, overrides(parallel__zero_stage=3)),
    "TP2 DP2 ZeRO-2": (4, overrides(parallel__tensor=2, parallel__zero_stage=2)),
    "TP2 DP2 ZeRO-3 sequence": (
        4, overrides(parallel__tensor=2, parallel__sequence_parallel="true", parallel__zero_stage=3)
    ),
}  # fmt: skip
ALL_LAYOUTS = LAYOUTS | MORE_LAYOUTS
Key = tuple[str, str]
"""an architecture and an optimizer"""
Found = dict[Key, Steps]


@pytest.fixture(scope="module")
def single_process(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Found]:
    """The reference: one process, one micro-batch a step."""
    folder = tmp_path_factory.mktemp("runs")
    keys = sorted({key for trained in TRAINED.values() for key in trained})
    return cache(lambda: train(small_data, folder, 1, ONE, keys)[0])


def train(small_data: SmallData, folder: Path, ranks: int, arguments: list[str], keys: list[Key]) -> list[Found]:
    """Steps of some architectures with some optimizers on a layout, for each rank."""
    configs = [
        small_data.run(folder, [*BATCH, *ARCHITECTURES[architecture], *OPTIMIZERS[optimizer], *arguments])
        for architecture, optimizer in keys
    ]
    found = run_on_ranks(record_all, ranks, configs, STEPS)
    return [dict(zip(keys, steps, strict=True)) for steps in found]


def different(found: list[Found], expected: Found) -> list[Key]:
    """What the ranks of a layout trained to other numbers than the single process did."""
    return [key for rank in found for key, steps in rank.items() if not _agrees(steps, expected[key])]


def test_the_single_process_learns_and_is_clipped(single_process: Callable[[], Found]) -> None:
    for key, steps in single_process().items():
        assert min(norm for _, norm in steps) > 4 * 0.05, f"the clip does not act on {key}"
        assert steps[0][0] - steps[-1][0] > 0.15, f"{key} learns nothing"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_change_the_result(
    layout: str, single_process: Callable[[], Found], small_data: SmallData, tmp_path: Path
) -> None:
    found = train(small_data, tmp_path, *LAYOUTS[layout], TRAINED[layout])
    assert different(found, single_process()) == []


@pytest.mark.parametrize("layout", MORE_LAYOUTS)
def test_other_layouts_agree_too(
    layout: str, single_process: Callable[[], Found], small_data: SmallData, tmp_path: Path
) -> None:
    found = train(small_data, tmp_path, *MORE_LAYOUTS[layout], [("GPT-2", "sgd")])
    assert different(found, single_process()) == []


def test_a_growing_batch_is_the_same_on_every_layout(small_data: SmallData, tmp_path: Path) -> None:
    """Batches of 4, 8 and 12 samples: the number of micro-batches changes from step to step."""
    ramp = [*OPTIMIZERS["sgd"], *BATCH, "--training.batch_ramp={start: 4, increment: 4, samples: 40}"]
    config = small_data.run(tmp_path, [*ramp, *overrides(training__micro_batch_size=4, parallel__zero_stage=0)])
    assert {config.timetable.batch_size(step) for step in range(1, 11)} == {4, 8, 12}
    expected = run_on_ranks(record_steps, 1, config, 10)[0]
    for layout in ("DP2 ZeRO-1", "PP2", "DP2 ZeRO-3"):
        ranks, arguments = ALL_LAYOUTS[layout]
        config = small_data.run(tmp_path, [*ramp, *arguments, *overrides(training__micro_batch_size=2)])
        for found in run_on_ranks(record_steps, ranks, config, 10):
            assert relative(found, expected) < 1e-5, layout


def test_gradients_are_normalised_by_the_global_count_of_targets(small_data: SmallData, tmp_path: Path) -> None:
    """Behind prefixes of random lengths ranks and micro-batches differ in how many targets they have."""

    def run(ranks: int, arguments: list[str], targets_only: bool) -> Steps:
        objective = f"--objective={{name: prefix_lm, loss_on_targets_only: {str(targets_only).lower()}}}"
        config = small_data.run(tmp_path, [*BATCH, *OPTIMIZERS["sgd"], *arguments, objective])
        return run_on_ranks(record_steps, ranks, config, 5)[0]

    expected = run(1, ONE, targets_only=True)
    assert expected != run(1, ONE, targets_only=False), "the weights are not used"
    for layout in ("DP2 ZeRO-1", "PP2", "accumulation 6", "DP2 ZeRO-3"):
        assert relative(run(*ALL_LAYOUTS[layout], targets_only=True), expected) < 1e-5, layout


def test_validation_is_over_the_same_samples(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 samples do not divide by 2 ranks x micro-batches of 2: rows of weight 0 fill up. So are its prefixes."""
    layouts = ("DP2 ZeRO-1", "PP2", "TP2 PP2", "DP2 ZeRO-3")
    found = {}
    for name, (ranks, arguments) in {"one": (1, []), **{layout: ALL_LAYOUTS[layout] for layout in layouts}}.items():
        monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / name))
        arguments = [*arguments, *overrides(training__micro_batch_size=2)]
        launch = start_launch(small_data.run(tmp_path, [*arguments, "--objective={name: prefix_lm, z_loss: 1e-3}"]))
        run_on_ranks(train_launch, ranks, str(launch.directory))
        validations = effective(read_events(launch.run.events), "validation")
        found[name] = [(event.facts["step"], event.facts["loss"]) for event in validations]
    assert [step for step, _ in found["one"]] == [4, 8]
    for layout in layouts:
        assert relative(found[layout], found["one"]) < 1e-5, layout


def test_bf16_stays_close_to_fp32(small_data: SmallData, tmp_path: Path) -> None:
    """Weights of 8 bits: losses within a hundredth, on every kind of engine; masters keep small updates."""
    exact = run_on_ranks(record_steps, 1, small_data.run(tmp_path), STEPS)[0]
    for ranks, arguments in (
        (1, overrides(parallel__zero_stage=0)),
        (2, overrides(parallel__zero_stage=2)),
        (2, overrides(parallel__zero_stage=3)),
        (4, overrides(parallel__pipeline=2, parallel__zero_stage=1)),
    ):
        config = small_data.run(tmp_path, [*arguments, "--training.precision=bf16"])
        found = run_on_ranks(record_steps, ranks, config, STEPS)[0]
        assert relative([(loss,) for loss, _ in found], [(loss,) for loss, _ in exact]) < 1e-2
        assert found != exact


def _agrees(found: Steps, expected: Steps) -> bool:
    return relative(found[:3], expected[:3]) < 1e-5 and relative(found[-1:], expected[-1:]) < 1e-4
