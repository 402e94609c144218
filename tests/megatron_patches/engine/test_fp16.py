"""fp16 through the engine: its scale. On a CPU a plan refuses it, but the engine's part of it is the same there."""

import json
import signal
from pathlib import Path

import pytest
from torch import Tensor

from megatron_patches.run.config import RunConfig
from tests.megatron_patches.checkpoint.test_resume import launch, losses, train_and_signal, train_to_end
from tests.ranks import run_on_ranks
from tests.small_engine import SmallEngine, record_steps
from tests.small_training import SmallData, overrides

LAYOUTS = {
    "one": (1, overrides(parallel__zero_stage=0)),
    "DP2 ZeRO-1": (2, overrides(parallel__zero_stage=1)),
    "PP2": (2, overrides(parallel__pipeline=2, parallel__zero_stage=0)),
}


def fp16(scale: str) -> list[str]:
    return ["--training.precision=fp16", f"--training.loss_scale={scale}"]


def weight_of_a_step(config: RunConfig) -> float:
    """What this rank's weights of the first step add up to, as the backward pass starts from them."""
    from megatron_patches.engine.deepspeed_engine import DeepSpeedEngine

    small = SmallEngine(config)
    engine = small.engine
    assert isinstance(engine, DeepSpeedEngine)
    batches = small.batches.at(0)
    small.batches.close()
    return sum(batch.weights.sum().item() for batch in engine._to_train(batches))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_scale_is_of_a_ranks_own_mean(layout: str, small_data: SmallData, tmp_path: Path) -> None:
    """As in Megatron: on any number of data-parallel ranks the fp16 gradients of a rank are of one size."""
    ranks, arguments = LAYOUTS[layout]
    config = small_data.run(tmp_path, [*arguments, *fp16("{initial: 4096}")])
    for found in run_on_ranks(weight_of_a_step, ranks, config):
        assert found == pytest.approx(4096, rel=1e-5)


def scales_and_losses(config: RunConfig, steps: int) -> list[tuple[float, float]]:
    """(loss scale after the step, loss) of each step."""
    from megatron_patches.optim.loss_scale import LossScale

    seen: list[float] = []
    update = LossScale.update

    def update_and_note(self: LossScale, found_inf: Tensor) -> None:
        update(self, found_inf)
        seen.append(self.scale.item())

    LossScale.update = update_and_note  # type: ignore[method-assign]
    return [(scale, loss) for (loss, _), scale in zip(record_steps(config, steps), seen, strict=True)]


def test_an_overflow_leaves_the_update_out_and_lowers_the_scale(small_data: SmallData, tmp_path: Path) -> None:
    """2^40 is far beyond what fp16 holds: the scale is halved until a step counts, and only then the loss falls."""
    arguments = fp16("{initial: 1099511627776, hysteresis: 1, window: 1000}")
    same = overrides(data__max_epochs=100)
    found = run_on_ranks(
        scales_and_losses, 1, small_data.run(tmp_path, [*arguments, *same, "--training.steps=40"]), 40
    )[0]
    halvings = [2.0 ** (39 - number) for number in range(40)]
    overflows = sum(scale == halved for (scale, _), halved in zip(found, halvings, strict=True))
    assert 10 < overflows < 36 and found[-1][0] == halvings[overflows - 1], "halved at each, then kept"
    first = [loss for _, loss in found[:overflows]]
    assert max(first) - min(first) < 0.1 and found[-1][1] < min(first) - 0.2


def test_the_scale_is_saved(small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*LAYOUTS["DP2 ZeRO-1"][1], *fp16("{initial: 1024, window: 2}")]
    config = small_data.run(tmp_path, arguments)
    whole = train_to_end(config, 2, tmp_path / "whole", monkeypatch)
    stopped = launch(config, tmp_path / "stopped", monkeypatch)
    run_on_ranks(train_and_signal, 2, str(stopped.directory), 4, signal.SIGUSR1, 1)
    saved = _scale(stopped.run.checkpoints / "step-0000000005")
    assert saved == {"scale": 4096.0, "clean_steps": 1, "hysteresis_left": 2}
    train_to_end(config, 2, tmp_path / "stopped", monkeypatch)
    assert losses(stopped.run) == losses(whole)
    assert _scale(stopped.run.checkpoints / "step-0000000008") == _scale(whole.checkpoints / "step-0000000008")


def counters_taken_over(config: RunConfig) -> list[dict[str, float]]:
    """Of an engine after three steps; of a second one that took them, and of a third that was told of updates alone."""

    def numbers(small: SmallEngine) -> dict[str, float]:
        return {name: counter.item() for name, counter in small.engine.counters().items()}

    first = SmallEngine(config)
    first.train(3)
    first.batches.close()
    found = [numbers(first)]
    for taken in (found[0], {"optimizer_steps": 3}):
        other = SmallEngine(config, first.groups)
        other.batches.close()
        other.engine.load_counters(taken)
        found.append(numbers(other))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counters_are_taken_over(layout: str, small_data: SmallData, tmp_path: Path) -> None:
    """A checkpoint of another precision has none of the scale's: it then starts as a new one."""
    ranks, arguments = LAYOUTS[layout]
    config = small_data.run(tmp_path, [*arguments, *fp16("{initial: 1024, window: 2, hysteresis: 3}")])
    for first, second, third in run_on_ranks(counters_taken_over, ranks, config):
        assert first == {"optimizer_steps": 3, "scale": 2048.0, "clean_steps": 1, "hysteresis_left": 3}
        assert second == first
        assert third == {"optimizer_steps": 3, "scale": 1024.0, "clean_steps": 0, "hysteresis_left": 3}


def test_an_optimizer_that_counts_no_updates_has_none(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path, ["--optimizer={name: sgd, learning_rate: 1e-2}"])
    first, second, _ = run_on_ranks(counters_taken_over, 1, config)[0]
    assert first == second == {"optimizer_steps": 0}


def _scale(checkpoint: Path) -> dict[str, float]:
    return json.loads((checkpoint / "trainer.json").read_text())["engine"]
