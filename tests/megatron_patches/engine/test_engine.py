"""What the engines promise beside equal results: fragments, frozen parameters, fp16."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from megatron_patches.run.config import RunConfig
from tests.megatron_patches.engine.test_layouts import ARCHITECTURES, OPTIMIZERS
from tests.ranks import run_on_ranks
from tests.small_engine import Steps, groups_of, record_steps, relative
from tests.small_training import SmallData, overrides

BIAS_ONLY = ['--training.trainable=["*.bias"]', "--optimizer.weight_decay=0.0"]
LAYOUTS = {
    "one": (1, overrides(parallel__zero_stage=0)),
    "TP2 DP2": (4, overrides(parallel__tensor=2, parallel__zero_stage=0)),
    "PP2 DP2 ZeRO-1": (4, overrides(parallel__pipeline=2, parallel__zero_stage=1)),
    "TP2 DP2 ZeRO-2": (4, overrides(parallel__tensor=2, parallel__zero_stage=2)),
    "DP3 ZeRO-3": (3, overrides(parallel__zero_stage=3, training__global_batch_size=12)),
}


@pytest.fixture(scope="module")
def single_process(
    small_data: SmallData, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[str], int], Steps]:
    """Steps of one process under some settings; each is trained once."""
    folder = tmp_path_factory.mktemp("single")

    @cache
    def train(settings: tuple[str, ...], steps: int) -> Steps:
        config = small_data.run(folder, [*LAYOUTS["one"][1], *settings])
        return run_on_ranks(record_steps, 1, config, steps)[0]

    return lambda settings, steps: train(tuple(settings), steps)


def counted_elements(configs: Sequence[RunConfig]) -> list[list[tuple[str, int, int, tuple]]]:
    """Of each run this rank's counted fragments: name, start, elements, box."""
    from megatron_patches.engine.build import build_engine
    from megatron_patches.parallel.randomness import StepRandomness

    groups, found = groups_of(configs[0]), []
    for config in configs:
        engine = build_engine(config, groups, StepRandomness(1, groups.coordinates, groups.device))
        fragments = engine.placement.fragments()
        for fragment in fragments:
            assert fragment.tensor.numel() >= fragment.offset + fragment.elements > fragment.offset
        found.append(
            [(each.name, each.start, each.elements, each.info.slice.box) for each in fragments if each.counted]
        )
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_trained_element_is_counted_on_one_rank_of_its_stage(
    layout: str, small_data: SmallData, tmp_path: Path
) -> None:
    ranks, layout_words = LAYOUTS[layout]
    configs = [small_data.run(tmp_path, [*layout_words, *arguments]) for arguments in ([], BIAS_ONLY)]
    of_ranks = run_on_ranks(counted_elements, ranks, configs)
    table = configs[0].parameters
    everything = {row.name: row.elements for row in table}
    if "PP" in layout:
        everything["embedding.tokens.table.weight"] *= 2  # tied: each stage has its own
    biases = {row.name: row.elements for row in table if row.name.endswith(".bias")}
    for number, expected in enumerate((everything, biases)):
        stretches = [stretch for of_runs in of_ranks for stretch in of_runs[number]]
        assert len(set(stretches)) == len(stretches) or "PP" in layout
        sums = dict.fromkeys(expected, 0)
        for name, _, elements, _ in stretches:
            sums[name] += elements
        assert sums == expected


def weights_before_and_after(config: RunConfig) -> dict[str, tuple[float, float]]:
    """Sum of absolute values of each weight that this rank writes, before and after five steps."""
    from data_tools.run_data import RunData
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.engine.build import build_engine
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.run.layout import plan_layout
    from megatron_patches.training.train import training_batches

    groups = start_process_groups(
        plan_layout(config, int(os.environ["WORLD_SIZE"])), PRECISIONS[config.training.precision]
    )
    engine = build_engine(config, groups, StepRandomness(1, groups.coordinates, groups.device))
    batches = training_batches(config, RunData(config.data, CHECKOUT, config.lengths, config.place_after), groups)

    def sums() -> dict[str, float]:
        pieces = [piece for piece in engine.state() if piece.kind == "weight"]
        return {f"{piece.name}@{piece.start}": piece.tensor.double().abs().sum().item() for piece in pieces}

    before = sums()
    for step in range(1, 6):
        engine.forward_backward(batches.at(config.timetable.after(step - 1).samples))
        engine.step(1e-2, engine.grad_norm())
    batches.close()
    after = sums()
    return {name: (before[name], after[name]) for name in before}


@pytest.mark.parametrize("layout", ["one", "PP2 DP2 ZeRO-1", "DP3 ZeRO-3"])
def test_frozen_parameters_stay_and_are_saved(layout: str, small_data: SmallData, tmp_path: Path) -> None:
    ranks, arguments = LAYOUTS[layout]
    changed = set()
    for found in run_on_ranks(weights_before_and_after, ranks, small_data.run(tmp_path, [*arguments, *BIAS_ONLY])):
        for name, (before, after) in found.items():
            if before != after:
                changed.add(name.split("@")[0])
        assert any(name.startswith("layers.") and ".weight" in name for name in found)
    assert changed and all(name.endswith(".bias") for name in changed)


@pytest.mark.parametrize("layout", ["TP2 DP2", "PP2 DP2 ZeRO-1", "TP2 DP2 ZeRO-2", "DP3 ZeRO-3"])
def test_frozen_parameters_are_no_part_of_the_norm_on_any_layout(
    layout: str, small_data: SmallData, tmp_path: Path, single_process: Callable[[Sequence[str], int], Steps]
) -> None:
    frozen = ['--training.frozen=["embedding.*", "*.attention.*"]', *overrides(training__global_batch_size=12)]
    ranks, arguments = LAYOUTS[layout]
    expected = single_process(frozen, 4)
    for found in run_on_ranks(record_steps, ranks, small_data.run(tmp_path, [*arguments, *frozen]), 4):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
    assert expected[0][1] < 0.9 * single_process([], 1)[0][1]


@pytest.mark.parametrize("layout", ["one", "PP2 DP2 ZeRO-1", "TP2 DP2 ZeRO-2", "DP3 ZeRO-3"])
def test_fp16_scales_the_loss_and_nothing_else(
    layout: str, small_data: SmallData, tmp_path: Path, single_process: Callable[[Sequence[str], int], Steps]
) -> None:
    """On a CPU a run is refused, but its parts work: losses and norms are those of fp32, to 11 bits."""
    batch = overrides(training__global_batch_size=12)
    exact = single_process(batch, 5)
    ranks, arguments = LAYOUTS[layout]
    half = [*arguments, *batch, *overrides(training__precision="fp16")]
    for found in run_on_ranks(record_steps, ranks, small_data.run(tmp_path, half), 5):
        assert relative(found, exact) < 1e-2 and found != exact


def overflowing_steps(config: RunConfig) -> tuple[list[float], list[bool]]:
    """Loss scale after each of three steps whose loss scale is too large at first; whether each changed the weights."""
    from tests.megatron_patches.engine.test_deepspeed_patches import engine_and_batch

    engine, batch = engine_and_batch(config)
    scales, changed = [], []
    for _ in range(3):
        before = [piece.tensor.clone() for piece in engine.state() if piece.kind == "weight"]
        engine.forward_backward(batch)
        engine.step(1e-2, engine.grad_norm())
        after = [piece.tensor for piece in engine.state() if piece.kind == "weight"]
        changed.append(any(not ours.equal(old) for ours, old in zip(after, before, strict=True)))
        scales.append(engine.counters()["scale"].item())
    return scales, changed


@pytest.mark.parametrize("layout", ["one", "PP2 DP2 ZeRO-1", "TP2 DP2 ZeRO-2", "DP3 ZeRO-3"])
def test_a_step_that_overflows_halves_the_scale_and_changes_nothing(
    layout: str, small_data: SmallData, tmp_path: Path
) -> None:
    ranks, arguments = LAYOUTS[layout]
    too_large = "--training.loss_scale={initial: 16777216.0, hysteresis: 1}"
    config = small_data.run(tmp_path, [*arguments, *overrides(training__precision="fp16"), too_large])
    for scales, changed in run_on_ranks(overflowing_steps, ranks, config):
        assert scales[0] == 2**23 and changed[0] is False


@pytest.mark.parametrize(("architecture", "recomputation"), [("GPT-2", "full"), ("Llama", "none")])
def test_zero_3_gathers_matrices_that_it_does_not_keep(
    architecture: str, recomputation: str, small_data: SmallData, tmp_path: Path
) -> None:
    """DeepSpeed keeps parameters of up to 100,000 elements whole, so all of the other tests' models."""
    large = overrides(
        model__hidden_size=512, model__ffn_size=512, model__layers=2, training__global_batch_size=4,
        training__recomputation=recomputation,
    )  # fmt: skip
    arguments = [*ARCHITECTURES[architecture], *OPTIMIZERS["sgd"], *large]
    expected = run_on_ranks(record_steps, 1, small_data.run(tmp_path, [*arguments, *LAYOUTS["one"][1]]), 3)[0]
    for ranks, layout in (
        (2, overrides(parallel__zero_stage=3)),
        (2, overrides(parallel__tensor=2, parallel__zero_stage=3)),
    ):
        for found in run_on_ranks(record_steps, ranks, small_data.run(tmp_path, [*arguments, *layout]), 3):
            for ours, theirs in zip(found, expected, strict=True):
                assert ours == pytest.approx(theirs, rel=1e-5)


def losses_around_a_restore(config: RunConfig) -> tuple[float, float, float]:
    """Validation loss before a step, after it, and when the weights from before were written back."""
    from tests.megatron_patches.engine.test_deepspeed_patches import engine_and_batch

    engine, batch = engine_and_batch(config)

    def weights() -> list:
        return [piece.tensor for piece in engine.state() if piece.kind == "weight"]

    losses = [engine.evaluate(batch)["loss"].mean]
    kept = [tensor.clone() for tensor in weights()]
    engine.forward_backward(batch)
    engine.step(1e-2, engine.grad_norm())
    losses.append(engine.evaluate(batch)["loss"].mean)
    for tensor, old in zip(weights(), kept, strict=True):
        tensor.copy_(old)
    return losses[0], losses[1], engine.evaluate(batch)["loss"].mean


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_are_written_back_are_seen(layout: str, small_data: SmallData, tmp_path: Path) -> None:
    ranks, arguments = LAYOUTS[layout]
    for before, after, restored in run_on_ranks(losses_around_a_restore, ranks, small_data.run(tmp_path, arguments)):
        assert restored == before != after
