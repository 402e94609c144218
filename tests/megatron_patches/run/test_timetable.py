"""Steps, samples and tokens while the global batch grows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

from megatron_patches.run.progress import Progress
from megatron_patches.run.timetable import Timetable
from megatron_patches.training.training_config import BatchRampConfig, TrainingConfig

TR11 = BatchRampConfig(start=192, increment=16, samples=9_765_625)


def training(global_batch_size: int, ramp: BatchRampConfig | None = None, **length: int) -> TrainingConfig:
    return TrainingConfig(global_batch_size=global_batch_size, batch_ramp=ramp, micro_batch_size=1, **length)


def test_tr11_takes_115311_steps() -> None:
    """The figure of BigScience's 176B run: 220 million samples, of which the ramp takes 9,765,625."""
    timetable = Timetable(training(2048, TR11, samples=220_000_000), 2048)
    assert timetable.steps == 115_311
    assert timetable.batch_size(1) == 192 and timetable.batch_size(115_311) == 2048
    assert 220_000_000 - 2048 < timetable.end.samples <= 220_000_000
    assert timetable.end.tokens == timetable.end.samples * 2048


def test_tr11_is_megatrons_ramp() -> None:
    """megatron-core's own calculator, over the whole ramp and a little more."""
    theirs = RampupBatchsizeNumMicroBatchesCalculator(
        global_batch_size=2048, micro_batch_size=1, data_parallel_size=1, decrease_batch_size_if_needed=False, rank=1,
        start_global_batch_size=192, batch_size_increment=16, ramup_samples=9_765_625,
    )  # fmt: skip
    timetable = Timetable(training(2048, TR11, samples=220_000_000), 2048)
    step = samples = 0
    while samples < 10_000_000:
        theirs.update(samples, consistency_check=False)
        assert timetable.batch_size_at(samples) == timetable.batch_size(step + 1) == theirs.current_global_batch_size
        step, samples = step + 1, samples + theirs.current_global_batch_size
        assert timetable.after(step).samples == samples


def size_by_rule(ramp: BatchRampConfig, last: int, consumed: int) -> int:
    """Megatron's rule without its rounding: so many increments as whole shares of the ramp have been consumed."""
    increments = (last - ramp.start) // ramp.increment
    return min(last, ramp.start + consumed * increments // ramp.samples * ramp.increment)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_ramp_is_the_rule_applied_step_by_step(data: st.DataObject) -> None:
    start, increment = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 10))
    last = start + increment * data.draw(st.integers(1, 12))
    ramp = BatchRampConfig(start=start, increment=increment, samples=data.draw(st.integers(1, 1500)))
    length = data.draw(st.integers(last, 3000))
    sizes, samples = [], 0
    while samples + (size := size_by_rule(ramp, last, samples)) <= length:
        sizes.append(size)
        samples += size

    timetable = Timetable(training(last, ramp, samples=length), 4)
    assert timetable.steps == len(sizes)
    assert [timetable.batch_size(step) for step in range(1, len(sizes) + 1)] == sizes
    assert timetable.end == Progress(len(sizes), samples, samples * 4)
    assert [timetable.batch_size_at(timetable.after(step).samples) for step in range(len(sizes))] == sizes
    assert Timetable(training(last, ramp, steps=len(sizes)), 4).end == timetable.end
    assert Timetable(training(last, ramp, tokens=length * 4 + 3), 4).end == timetable.end


def test_lengths_without_a_ramp() -> None:
    for length in ({"steps": 10}, {"samples": 87}, {"tokens": 87 * 16 + 15}):
        timetable = Timetable(training(8, **length), 16)
        assert timetable.end == Progress(10, 80, 1280)
        assert (timetable.position(3, "steps"), timetable.position(3, "samples"), timetable.position(3, "tokens")) == (
            3, 24, 384,
        )  # fmt: skip


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_ramp_shorter_than_its_batches(samples: int) -> None:
    """Sizes whose share of samples is less than one step are left out."""
    timetable = Timetable(training(64, BatchRampConfig(start=8, increment=8, samples=samples), steps=3), 1)
    assert [timetable.batch_size(step) for step in (1, 2, 3)] == [8, 64, 64]
