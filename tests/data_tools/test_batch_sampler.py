import numpy as np
import pytest

from data_tools.batch_sampler import BatchSampler
from data_tools.errors import TrainyardError


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 1), (1, 24), (2, 3), (3, 2), (4, 6), (24, 1)])
@pytest.mark.parametrize("consumed", [0, 24, 24 * 7])
def test_ranks_together_read_the_global_batch_once(ranks: int, micro_batch: int, consumed: int) -> None:
    read = [BatchSampler(24, micro_batch, rank, ranks).micro_batches(consumed) for rank in range(ranks)]
    assert all(len(batch) == micro_batch for batches in read for batch in batches)
    assert {len(batches) for batches in read} == {24 // (ranks * micro_batch)}
    samples = np.concatenate([batch for batches in read for batch in batches])
    assert sorted(samples.tolist()) == list(range(consumed, consumed + 24))


def test_a_resume_on_another_layout_continues_where_the_run_stopped() -> None:
    seen: list[int] = []
    for ranks, micro_batch in ((4, 1), (2, 2), (1, 8)):
        for rank in range(ranks):
            seen += np.concatenate(BatchSampler(8, micro_batch, rank, ranks).micro_batches(len(seen) // 8 * 8)).tolist()
    assert sorted(seen) == list(range(24))


def test_micro_batches_interleave_the_ranks() -> None:
    assert [batch.tolist() for batch in BatchSampler(8, 2, 1, 2).micro_batches(100)] == [[102, 103], [106, 107]]


@pytest.mark.parametrize(("global_batch", "remedy"), [(25, "to 24 or 30,"), (5, "to 6,"), (0, "to 6,")])
def test_a_global_batch_that_does_not_divide(global_batch: int, remedy: str) -> None:
    with pytest.raises(TrainyardError, match=f"micro-batch 2 x 3 data-parallel ranks = 6; .*{remedy}"):
        BatchSampler(global_batch, 2, 0, 3)
