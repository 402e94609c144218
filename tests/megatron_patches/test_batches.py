"""What a rank reads for a step depends on the consumed samples alone; its weights are shares of the global batch."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.batch_sampler import BatchSampler
from data_tools.errors import TrainyardError
from data_tools.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from data_tools.windows import TokenWindows, TrainingOrder
from megatron_patches.batches import TrainingBatches, read_windows, share_targets, validation_micro_batches
from megatron_patches.objectives.causal import causal_micro_batch

ALONE: Any = SimpleNamespace(
    layout=SimpleNamespace(data=1), coordinates=SimpleNamespace(data=0, tensor=0, pipeline=0), control_group=None
)


@pytest.fixture
def windows(tmp_path: Path) -> TokenWindows:
    """20 windows of 4 tokens, of the numbers from 0."""
    with IndexedDatasetWriter(tmp_path / "numbers", np.uint16) as writer:
        writer.add_document(np.arange(81))
    return TokenWindows(IndexedDataset(tmp_path / "numbers"), (0, 1), 4)


def batches(windows: TokenWindows) -> TrainingBatches:
    return TrainingBatches(windows, TrainingOrder(len(windows), 3), BatchSampler(4, 2, 0, 1), 100, ALONE)


def test_reading_ahead_changes_nothing(windows: TokenWindows) -> None:
    in_order, jumping = batches(windows), batches(windows)
    expected = {consumed: torch.stack([m.tokens for m in in_order.at(consumed)]) for consumed in range(0, 48, 4)}
    for consumed in (44, 0, 4, 20, 20, 8):  # 44 is in the third epoch
        assert torch.equal(torch.stack([m.tokens for m in jumping.at(consumed)]), expected[consumed])
    first_epoch = torch.cat([expected[consumed][..., 0].flatten() for consumed in range(0, 20, 4)])
    assert sorted(first_epoch.tolist()) == list(range(0, 80, 4))
    in_order.close()
    jumping.close()


def test_labels_are_the_next_tokens_and_weights_add_up_to_one(windows: TokenWindows) -> None:
    reader = batches(windows)
    micro_batches = reader.at(0)
    assert len(micro_batches) == 2 and micro_batches[0].tokens.shape == (2, 4)
    assert all(torch.equal(batch.labels, batch.tokens + 1) for batch in micro_batches)
    assert sum(batch.weights.sum().item() for batch in micro_batches) == pytest.approx(1.0)
    reader.close()


def test_validation_takes_the_first_windows_and_fills_up_with_weight_zero(windows: TokenWindows) -> None:
    micro_batches = validation_micro_batches(windows, 5, 2, 100, ALONE)
    weights = torch.cat([batch.weights for batch in micro_batches])
    tokens = torch.cat([batch.tokens for batch in micro_batches])
    assert weights.shape == (6, 4) and weights[5].sum() == 0
    assert torch.allclose(weights[:5], torch.full((5, 4), 1 / 20))
    assert torch.equal(tokens[:5, 0], torch.arange(0, 20, 4))


def test_an_id_beyond_the_vocabulary_is_named(windows: TokenWindows) -> None:
    with pytest.raises(TrainyardError, match=r"window 19 .* token id 80, .*vocabulary has 80; .*tools/dataset verify"):
        read_windows(windows, np.array([3, 19]), 80)


def test_a_batch_without_targets_is_refused() -> None:
    empty = causal_micro_batch(torch.zeros(2, 5, dtype=torch.int64), real_rows=0)
    with pytest.raises(TrainyardError, match="no target"):
        share_targets([empty], ALONE)
