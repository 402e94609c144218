import numpy as np
import pytest

from data_tools.samples.batch_sampler import BatchSampler


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 1), (1, 24), (2, 3), (3, 2), (4, 6), (24, 1)])
@pytest.mark.parametrize("consumed", [0, 24, 24 * 7])
def test_ranks_together_read_the_global_batch_once(ranks: int, micro_batch: int, consumed: int) -> None:
    read = [BatchSampler(lambda _: 24, micro_batch, rank, ranks).micro_batches(consumed) for rank in range(ranks)]
    assert all(len(batch) == micro_batch for batches in read for batch in batches)
    assert {len(batches) for batches in read} == {24 // (ranks * micro_batch)}
    samples = np.concatenate([batch for batches in read for batch in batches])
    assert sorted(samples.tolist()) == list(range(consumed, consumed + 24))


def test_a_resume_on_another_layout_continues_where_the_run_stopped() -> None:
    seen: list[int] = []
    for ranks, micro_batch in ((4, 1), (2, 2), (1, 8)):
        for rank in range(ranks):
            seen += np.concatenate(
                BatchSampler(lambda _: 8, micro_batch, rank, ranks).micro_batches(len(seen) // 8 * 8)
            ).tolist()
    assert sorted(seen) == list(range(24))


def test_micro_batches_interleave_the_ranks() -> None:
    assert [batch.tolist() for batch in BatchSampler(lambda _: 8, 2, 1, 2).micro_batches(100)] == [
        [102, 103],
        [106, 107],
    ]


def test_a_growing_batch() -> None:
    sampler = BatchSampler(lambda consumed: 4 if consumed < 8 else 8, 2, 1, 2)
    assert [batch.tolist() for batch in sampler.micro_batches(4)] == [[6, 7]]
    assert [batch.tolist() for batch in sampler.micro_batches(8)] == [[10, 11], [14, 15]]
