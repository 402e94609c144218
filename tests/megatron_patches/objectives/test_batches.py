"""What a rank reads for a step depends on the consumed samples alone; its weights are shares of the global batch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.loader_config import LoaderConfig
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blend import PERIOD
from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples
from data_tools.samples.windows import TokenWindows
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.errors import TrainyardError
from megatron_patches.objectives.batches import (
    TrainingBatches,
    has_target,
    is_pinned,
    of_all_ranks,
    share_targets,
    stacked,
    validation_micro_batches,
)
from megatron_patches.objectives.build import build_objective
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig
from megatron_patches.parallel.layout import Layout
from tests.ranks import run_on_ranks
from tests.small_model import causal_lengths

ALONE: Any = SimpleNamespace(
    layout=SimpleNamespace(data=1), coordinates=SimpleNamespace(data=0, tensor=0, pipeline=0), control_group=None,
    device=torch.device("cpu"),
)  # fmt: skip
CAUSAL = build_objective(CausalConfig(name="causal"), seed=3, end_of_document=None)
PREFIX_LM = build_objective(PrefixLMConfig(name="prefix_lm"), seed=3, end_of_document=None)


@pytest.fixture
def windows(tmp_path: Path) -> TokenWindows:
    """20 windows of 4 tokens, of the numbers from 0."""
    with IndexedDatasetWriter(tmp_path / "numbers", np.uint16) as writer:
        writer.add_document(np.arange(81))
    return TokenWindows(IndexedDataset(tmp_path / "numbers"), (0, 1), causal_lengths(4))


def batches(windows: TokenWindows, objective: Objective = CAUSAL, micro_batch_size: int = 2) -> TrainingBatches:
    sampler = BatchSampler(lambda _: 4, micro_batch_size, 0, 1)
    stages = BlendStages([Stage(0, (0,), (PERIOD,))], 1)
    samples = TrainingSamples([NamedSource("data", windows)], stages, seed=3)
    return TrainingBatches(samples, sampler, objective, 100, ALONE)


def test_reading_ahead_changes_nothing(windows: TokenWindows) -> None:
    in_order, jumping = batches(windows), batches(windows)
    expected = {
        consumed: torch.stack([m.inputs["tokens"] for m in in_order.at(consumed)]) for consumed in range(0, 48, 4)
    }
    for consumed in (44, 0, 4, 20, 20, 8):  # 44 is in the third epoch
        assert torch.equal(torch.stack([m.inputs["tokens"] for m in jumping.at(consumed)]), expected[consumed])
    first_epoch = torch.cat([expected[consumed][..., 0].flatten() for consumed in range(0, 20, 4)])
    assert sorted(first_epoch.tolist()) == list(range(0, 80, 4))
    in_order.close()
    jumping.close()


def test_labels_are_the_next_tokens_and_weights_add_up_to_one(windows: TokenWindows) -> None:
    reader = batches(windows)
    micro_batches = reader.at(0)
    assert len(micro_batches) == 2 and micro_batches[0].inputs["tokens"].shape == (2, 4)
    assert all(torch.equal(batch.labels, batch.inputs["tokens"] + 1) for batch in micro_batches)
    assert sum(batch.weights.sum().item() for batch in micro_batches) == pytest.approx(1.0)
    reader.close()


def test_validation_takes_the_first_windows_and_fills_up_with_weight_zero(windows: TokenWindows) -> None:
    micro_batches = validation_micro_batches(windows, CAUSAL, 5, 2, 100, ALONE)
    weights = torch.cat([batch.weights for batch in micro_batches])
    tokens = torch.cat([batch.inputs["tokens"] for batch in micro_batches])
    assert weights.shape == (6, 4) and weights[5].sum() == 0
    assert torch.allclose(weights[:5], torch.full((5, 4), 1 / 20))
    assert torch.equal(tokens[:5, 0], torch.arange(0, 20, 4))


def prefix_ends(micro_batches: list[MicroBatch]) -> list[int]:
    """Where the prefix of each sample ends."""
    return [end for batch in micro_batches for end in batch.inputs["visible"][:, 0, 1].tolist()]


def test_prefixes_follow_the_samples_whatever_the_micro_batch(windows: TokenWindows) -> None:
    """Of 12 epochs' steps; an epoch is 5 steps of the same windows with other prefixes."""
    steps = range(0, 240, 4)
    ends = {}
    for size in (1, 2, 4):
        reader = batches(windows, PREFIX_LM, micro_batch_size=size)
        ends[size] = [prefix_ends(reader.at(consumed)) for consumed in steps]
        reader.close()
    assert ends[1] == ends[2] == ends[4]
    assert {end for step in ends[1] for end in step} == {1, 2, 3, 4}
    assert ends[1][:5] != ends[1][5:10]


def test_prefixes_of_validation_are_the_same_every_time(windows: TokenWindows) -> None:
    found = [prefix_ends(validation_micro_batches(windows, PREFIX_LM, 12, size, 100, ALONE)) for size in (1, 3, 6, 3)]
    assert found[0] == found[1] == found[2] == found[3] and len(set(found[0])) > 1


def test_a_micro_batch_may_be_without_targets(windows: TokenWindows) -> None:
    """9 is one label of one window: no other micro-batch has a target."""

    def only_nine(items: Mapping[str, torch.Tensor], samples: np.ndarray) -> MicroBatch:
        whole = CAUSAL(items, samples)
        return replace(whole, weights=whole.weights * (whole.labels == 9))

    weights = [batch.weights for batch in validation_micro_batches(windows, only_nine, 12, 2, 100, ALONE)]
    assert sorted(each.sum().item() for each in weights) == [0, 0, 0, 0, 0, 1]


def test_whether_there_is_a_target_is_found_at_the_first(windows: TokenWindows) -> None:
    looked: list[int] = []

    def only_nine(items: Mapping[str, torch.Tensor], samples: np.ndarray) -> MicroBatch:
        looked.extend(samples.tolist())
        whole = CAUSAL(items, samples)
        return replace(whole, weights=whole.weights * (whole.labels == 9))

    assert has_target(windows, only_nine, 20, 100) and looked == [0, 1, 2]
    assert not has_target(windows, only_nine, 2, 100)


def test_an_id_beyond_the_vocabulary_is_named(windows: TokenWindows) -> None:
    with pytest.raises(TrainyardError, match=r"sample 19 .* token id 80, .*vocabulary has 80; .*tools/dataset verify"):
        stacked([windows[3], windows[19]], np.array([3, 19]), 80)


def test_a_batch_without_targets_is_refused() -> None:
    ends = torch.zeros(2, 5, dtype=torch.int64)
    empty = build_objective(CausalConfig(name="causal", loss_after_end_of_document=False), 3, 0)(
        {"tokens": ends}, np.arange(2)
    )
    with pytest.raises(TrainyardError, match="no target"):
        share_targets([empty], ALONE)


@pytest.mark.parametrize(
    ("pin_memory", "device", "expected"),
    [("auto", "cpu", False), ("auto", "cuda", True), (False, "cuda", False), (True, "cuda", True)],
)
def test_batches_for_a_gpu_lie_where_it_copies_from(
    pin_memory: Any, device: str, expected: bool, windows: TokenWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned as the last thing on the host, and sent without waiting; a CPU's are left alone."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    resetting = CausalConfig(name="causal", reset_attention=True, reset_positions=True)
    objective = build_objective(resetting, seed=3, end_of_document=7)
    rows = stacked([windows[0], windows[1]], np.arange(2), 100)
    asked = is_pinned(LoaderConfig(pin_memory=pin_memory), torch.device(device))
    shared = share_targets([objective(rows, np.arange(2))], ALONE, asked)[0]
    everything = [*shared.inputs.values(), shared.labels, shared.weights]
    assert len(everything) == 5
    assert [id(tensor) for tensor in pinned] == ([id(tensor) for tensor in everything] if expected else [])

    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **options: sent.append(options) or tensor)
    shared.to(torch.device(device))
    assert sent == [{"non_blocking": True}] * 5


def total_with_and_without_hashes(
    values: list[list[float]], layout: Layout
) -> tuple[list[float], list[float], int, float]:
    """One rank's totals, reduced alone, and beside hashes and seconds as training does; and the last of those."""
    import torch.distributed as dist

    from megatron_patches.parallel.process_groups import start_process_groups

    groups = start_process_groups(layout, torch.float32)
    own, alone, beside = values[groups.coordinates.data], [], []
    counts = groups.coordinates.tensor == 0 and groups.coordinates.pipeline == 0
    for value in own:
        total = torch.tensor(value if counts else 0.0, dtype=torch.float64)
        dist.all_reduce(total, group=groups.control_group)
        alone.append(total.item())
        waited = 0.5 + groups.coordinates.data
        totals = of_all_ranks(
            torch.tensor(value, dtype=torch.float64), 2**64 - 1 - groups.coordinates.data,
            10**9 + groups.coordinates.data, waited, groups,
        )  # fmt: skip
        beside.append(totals.targets.item())
        assert totals.texts == sum(10**9 + rank for rank in range(layout.data))
    return alone, beside, totals.delivered, totals.waited_seconds


@pytest.mark.parametrize("layout", [Layout(1, 1, 3), Layout(2, 1, 2)])
def test_hashes_and_waits_change_no_bit_of_the_total(layout: Layout) -> None:
    """Of doubles whose sum depends on the order in which they are added up."""
    values = np.random.default_rng(0).lognormal(0, 20, (layout.data, 200)).tolist()
    found = run_on_ranks(total_with_and_without_hashes, layout.world_size, values, layout)
    for alone, beside, delivered, waited in found:
        assert alone == beside
        assert waited == layout.data - 0.5, "the longest wait of any of them"
        assert delivered == sum(2**64 - 1 - rank for rank in range(layout.data)) % 2**64


def test_what_was_delivered_does_not_depend_on_who_reads(windows: TokenWindows) -> None:
    found = []
    for size in (1, 2, 4):
        reader = batches(windows, micro_batch_size=size)
        found.append([(reader.at(consumed), reader.delivered)[1] for consumed in (0, 4, 20, 24, 4)])
        reader.close()
    assert found[0] == found[1] == found[2] and found[0][1] == found[0][4]
    assert len(set(found[0])) == 4, "the same windows in another epoch lie at other places"
