"""Which rank stands where, and which layouts are refused."""

from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.parallel.layout import Coordinates, Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout, require_whole_batches
from megatron_patches.run.reading import load_run
from tests.small_run import write_run


def run(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_run(write_run(tmp_path / "run.yaml"), overrides)


def test_tensor_ranks_are_neighbours_and_stages_are_farthest_apart() -> None:
    layout = Layout(tensor=2, pipeline=3, data=4)
    assert layout.world_size == 24
    positions = [layout.coordinates(rank) for rank in range(24)]
    assert positions == [Coordinates(p, d, t) for p in range(3) for d in range(4) for t in range(2)]
    assert all((c.pipeline * 4 + c.data) * 2 + c.tensor == rank for rank, c in enumerate(positions))


def test_data_parallelism_takes_the_rest(tmp_path: Path) -> None:
    config = run(tmp_path, "--parallel.tensor", "2", "--parallel.pipeline", "2")
    layout = plan_layout(config, 8)
    assert layout == Layout(tensor=2, pipeline=2, data=2)
    assert layout.micro_batches(config.training) == 2
    assert plan_layout(config, 4).micro_batches(config.training) == 4


@pytest.mark.parametrize(("processes", "nearest"), [(6, "4 or 8"), (3, "number of processes: 4"), (9, "8 or 12")])
def test_processes_that_do_not_hold_whole_models(tmp_path: Path, processes: int, nearest: str) -> None:
    config = run(tmp_path, "--parallel.tensor", "2", "--parallel.pipeline", "2")
    with pytest.raises(TrainyardError, match=rf"{processes} processes cannot be divided .* = 4 .*{nearest}"):
        plan_layout(config, processes)


def test_a_batch_that_does_not_divide(tmp_path: Path) -> None:
    with pytest.raises(
        TrainyardError, match=r"micro_batch_size 2 x 3 data-parallel ranks = 6; .*global_batch_size: 6 or 12"
    ):
        plan_layout(run(tmp_path), 3)
    with pytest.raises(TrainyardError, match=r"= 16; nearest global_batch_size: 16; nearest micro_batch_size: 1"):
        plan_layout(run(tmp_path), 8)


def test_batches_of_a_ramp_divide_as_far_as_they_are_ahead(tmp_path: Path) -> None:
    """2 samples at first, 4 for the samples from 6 on, 8 from 14 on: four data-parallel ranks can go on there."""
    config = run(
        tmp_path, "--training.batch_ramp={start: 2, increment: 2, samples: 18}", "--training.micro_batch_size=1"
    )
    assert [stretch.batch_size for stretch in config.timetable.stretches] == [2, 4, 6, 8]
    full = config.timetable.stretches[-1].samples_before
    require_whole_batches(config, Layout(1, 1, 2), 0)
    for consumed in (0, full - 6):
        with pytest.raises(TrainyardError, match=r"of [26] samples, not divisible .* 4 data-parallel ranks = 4; .* 4"):
            require_whole_batches(config, Layout(1, 1, 4), consumed)
    require_whole_batches(config, Layout(1, 1, 4), full)
    require_whole_batches(config, Layout(1, 1, 8), full)
