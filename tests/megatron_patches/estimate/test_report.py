"""The estimate of published runs, and what is said of a layout that does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.communication import estimate_traffic
from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.estimate.report import Machines, estimate
from megatron_patches.estimate.step_time import data_sheet_speeds, work_of
from megatron_patches.estimate.text import as_text
from megatron_patches.hardware.machines import hardware_named
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.reading import load_run
from megatron_patches.tuning.candidates import Candidate, candidates
from megatron_patches.tuning.fit import require_fit

TRAIN = Path(__file__).parents[3] / "train"
A100 = hardware_named("A100-80GB")


@pytest.fixture(scope="module")
def bloom() -> RunConfig:
    return load_run(TRAIN / "tr11-176B-ml" / "tr11-176B-ml.yaml")


def test_bloom(bloom: RunConfig) -> None:
    layout = plan_layout(bloom, 384)
    found = estimate(bloom, layout, Machines(48, 8, A100), None, tflops=149.02, dollars_per_gpu_hour=2.0)
    assert found.parameters == 176_247_271_424
    assert bloom.timetable.steps == 115_311
    assert found.duration is not None
    assert found.duration.step_seconds == pytest.approx(105.22, abs=0.01)
    assert found.duration.dollars == pytest.approx(found.duration.days * 24 * 384 * 2)
    assert found.bubble == pytest.approx(11 / 139)
    assert found.memory.largest.total < A100.usable_memory  # it ran
    assert found.totals["none"] > A100.usable_memory  # and needed recomputation
    text = as_text(found)
    assert "149.0 BigScience" in text
    assert "fits             yes" in text


def test_what_is_not_known_is_not_said(bloom: RunConfig) -> None:
    found = estimate(bloom, plan_layout(bloom, 384), Machines(48, 8, None), None)
    assert found.duration is None
    assert "n/a: the GPU is not known" in as_text(found)
    assert data_sheet_speeds(hardware_named("V100-32GB"), "bf16") is None  # it has no such units


def test_what_a_ring_sends(bloom: RunConfig) -> None:
    """Of ZeRO 1 on 8 ranks: scattered fp32 gradients and a gather of bf16 weights; the tensor ranks' sums by hand."""
    layout = plan_layout(bloom, 384)
    largest = estimate_memory(bloom, layout).largest
    traffic = {each.axis: each for each in estimate_traffic(bloom, layout, largest, 8)}
    assert traffic["data"].bytes == largest.parameters * (4 + 2) * 7 // 8
    stream = 2 * 2048 * 14336 * 2
    assert traffic["tensor"].bytes == 2 * (2 * 3 * 6 + 2) * 3 * stream // 4 * 128
    assert (traffic["tensor"].link, traffic["pipeline"].link) == ("inside a node", "between nodes")


def test_zero_stages_share_more_and_more(bloom: RunConfig) -> None:
    config = load_run(TRAIN / "tr20-125M-domain-tokens" / "tr20a-125M-baseline.yaml")
    stages = [
        estimate_memory(config.model_copy(update={"parallel": config.parallel.model_copy(update={"zero_stage": zero})}),
                        Layout(1, 1, 8)).largest
        for zero in range(4)
    ]  # fmt: skip
    assert [stage.weights < stages[0].weights for stage in stages] == [False, False, False, True]
    assert [stage.gradients < stages[0].gradients for stage in stages] == [False, False, True, True]
    assert [stage.optimizer < stages[0].optimizer for stage in stages] == [False, True, True, True]


def test_a_run_that_does_not_fit_is_refused_with_the_smallest_change(bloom: RunConfig) -> None:
    layout, small = plan_layout(bloom, 384), hardware_named("A100-40GB")
    speeds = data_sheet_speeds(small, "bf16")
    assert speeds is not None

    def seconds(candidate: Candidate) -> float:
        return work_of(candidate.applied_to(bloom), candidate.layout(384), 8).seconds(speeds)

    with pytest.raises(TrainyardError, match=r"needs 42\.\d GB .* smallest change that fits: --training\.") as refused:
        require_fit(bloom, layout, small, 8, seconds)
    assert str(refused.value).count("--") == 1, "one key is enough"
    require_fit(bloom, layout, A100, 8, seconds)
    tiny = replace(small, memory=10**9)
    with pytest.raises(TrainyardError, match="no layout on 384 GPUs fits"):
        require_fit(bloom, layout, tiny, 8, seconds)


def test_candidates_are_layouts_that_load(bloom: RunConfig) -> None:
    found = candidates(bloom, 384, 8)
    assert len(found) == len(set(found)) > 300
    for each in found[:: len(found) // 40]:
        config = load_run(TRAIN / "tr11-176B-ml" / "tr11-176B-ml.yaml", each.overrides(bloom))
        assert plan_layout(config, 384) == each.layout(384)
        assert Candidate.of(config) == each


def test_a_batch_that_nothing_divides_names_the_nearest_numbers_of_gpus(bloom: RunConfig) -> None:
    with pytest.raises(TrainyardError, match="on 367 GPUs; nearest numbers of GPUs that work: 360 or 368"):
        candidates(bloom, 367, 1)
