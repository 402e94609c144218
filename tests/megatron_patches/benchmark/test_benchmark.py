"""The statistics of a comparison, whose turn it is, and what is said of the result."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_patches.benchmark.comparison import Benchmark, Peer, largest_difference
from megatron_patches.benchmark.statistics import Ratio, Spread, median_ratio, spread
from megatron_patches.benchmark.turns import Turns
from megatron_patches.benchmark.worker import alternate
from megatron_patches.models.interface.architecture import FlopsPerToken
from megatron_patches.profiling.time_breakdown import kind_of
from megatron_patches.report.text import as_text
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

FOUND = Benchmark(
    run="tr900a-28K-small",
    overrides=[],
    turns=Turns(alternations=30, warmup=3, steps=1),
    layout={"tensor": 1, "pipeline": 1, "data": 1, "sequence_parallel": False, "zero_stage": 0},
    recomputation="none",
    precision="fp32",
    compiled=None,
    parameters=28_000,
    global_batch_size=8,
    micro_batch_size=2,
    sequence_length=16,
    step_seconds=Spread(0.13, 0.12, 0.14),
    tokens_per_second=Spread(950.0, 900.0, 1000.0),
    tflops=FlopsPerToken(palm=0.03, bigscience=0.025, causal=0.02, computed=0.03),
    peak_tflops=None,
    first_loss=5.9,
    final_loss=5.0,
    memory=None,
    estimated_memory=10**6,
    breakdown=None,
    roof=None,
    peer=Peer("loop", Spread(1000.0, 980.0, 1010.0), Ratio(0.95, 0.93, 0.97), 1e-7, 5.0, None),
    hardware="a CPU",
    threads=1,
    load=0.1,
    versions={"python": "3.11"},
    commit="0123456789ab",
    date="2026-01-01T00:00+00:00",
)


def beside(difference: float, name: str = "loop") -> Benchmark:
    assert FOUND.peer is not None
    return replace(FOUND, peer=replace(FOUND.peer, name=name, loss_difference=difference))


def test_spread_of_known_numbers() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(median=3.0, low=2.0, high=4.0)


def test_the_ratio_is_the_median_of_pairs() -> None:
    # the ratios are 0.5, 2 and 0.9; the ratio of the medians would be 10 / 10
    assert median_ratio([1.0, 20.0, 90.0], [2.0, 10.0, 100.0]).median == 0.9


def test_equal_pairs_leave_no_doubt() -> None:
    assert median_ratio([1.0, 3.0, 8.0], [2.0, 6.0, 16.0]) == Ratio(0.5, 0.5, 0.5)


def test_a_slow_minute_that_hits_both_sides_cancels() -> None:
    machine = np.array([1.0, 1.0, 9.0, 9.0, 1.0])
    assert median_ratio(list(0.8 * machine), list(machine)) == Ratio(*[pytest.approx(0.8)] * 3)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(30):
        found = median_ratio(list(0.9 * draw.lognormal(0, 0.1, 30)), [1.0] * 30)
        held += found.low <= 0.9 <= found.high
    # 28.5 of 30 are expected; fewer than 25 come about once in 300 times, and the seed is fixed
    assert held >= 25


def test_more_measurements_narrow_the_interval_and_it_can_be_had_again() -> None:
    values = list(np.random.default_rng(2).lognormal(0, 0.2, 200))
    few, many = median_ratio(values[:20], [1.0] * 20), median_ratio(values, [1.0] * 200)
    assert many.high - many.low < (few.high - few.low) / 2
    assert median_ratio(values[:20], [1.0] * 20) == few


def test_sides_take_turns_and_change_who_is_first() -> None:
    order: list[str] = []
    seconds, _ = alternate((lambda: order.append("a"), lambda: order.append("b")), 3, 2, torch.device("cpu"))
    assert "".join(order) == "aabb" + "bbaa" + "aabb"
    assert [len(side) for side in seconds] == [3, 3]


def test_another_loss_is_said() -> None:
    assert FOUND.agrees
    assert "they agree" in as_text(FOUND)
    other = beside(2e-4)
    assert not other.agrees
    assert "DO NOT AGREE" in as_text(other)
    assert replace(other, precision="bf16").agrees
    assert beside(0.01, "nanogpt").agrees, "it draws its weights in another way"
    assert not beside(0.1, "nanogpt").agrees


def test_a_run_alone_has_no_ratio() -> None:
    alone = replace(FOUND, peer=None)
    assert alone.agrees
    assert "ours / peer" not in as_text(alone)
    assert not replace(alone, final_loss=float("nan")).agrees


def test_the_largest_difference_is_relative_to_the_reference() -> None:
    assert largest_difference([2.0, 5.0], [2.0, 4.0]) == 0.25
    assert largest_difference([4.0, 1.0], [2.0, 1.0]) == 1.0


def both_losses(launch_directories: dict[str, str]) -> dict[str, list[list[float]]]:
    """Losses of both sides of each measurement; what one has forgotten shows in its losses."""
    from megatron_patches.benchmark.worker import measure

    found = {}
    for name, directory in launch_directories.items():
        launch = Launch(Path(directory))
        measured = measure(load_resolved(launch.config), launch, alternations=2, warmup=0, steps=2)
        found[name] = [measured.ours.losses, measured.peer.losses]
    return found


PEERS = {
    "lion": ["--optimizer={name: lion, learning_rate: 1e-3, weight_decay: 0.1}"],
    "adafactor": ["--optimizer={name: adafactor, learning_rate: 3e-2}", "--schedule.final_learning_rate=0.0"],
    "muon": ["--optimizer={name: muon, learning_rate: 2e-2, rest: {learning_rate: 1e-2}}"],
    "muon in bf16": [
        "--optimizer={name: muon, learning_rate: 2e-2, rest: {learning_rate: 1e-2}}", "--training.precision=bf16",
    ],
    "frozen": ['--training.frozen=["embedding.*", "*.attention.*"]'],
    "embedding dropout": ["--model.embedding_dropout=0.2"],
}  # fmt: skip


def test_the_peer_trains_the_same(small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    launches = {}
    for number, (name, arguments) in enumerate(PEERS.items()):
        config = small_data.run(
            tmp_path, [*arguments, "--parallel.zero_stage=0"], name=f"tr900{'abcdef'[number]}-28K-small"
        )
        launches[name] = str(start_launch(config).directory)
    for name, (ours, peer) in run_on_ranks(both_losses, 1, launches)[0].items():
        assert len(ours) == len(peer) == 4
        assert largest_difference(ours, peer) <= (1e-3 if "bf16" in name else 1e-5), name
        assert ours[-1] < ours[0] - 0.01, name


@pytest.mark.parametrize("place", [0, 1])
def test_a_loss_that_is_no_number_never_agrees(place: int) -> None:
    losses = [5.0, 5.0]
    losses[place] = float("nan")
    assert not beside(largest_difference(losses, [5.0, 5.0])).agrees


def test_mfu_is_said_where_the_peak_is_known() -> None:
    assert FOUND.mfu is None
    assert "MFU n/a" in as_text(FOUND)
    known = replace(FOUND, tflops=replace(FOUND.tflops, causal=300.0), peak_tflops=600.0)
    assert known.mfu == 0.5
    assert "MFU 50.0% of 600" in as_text(known)


LAYOUTS = {
    "tensor 2": ["--parallel.tensor=2"],
    "sequence parallel 2": ["--parallel.tensor=2", "--parallel.sequence_parallel=true"],
    "pipeline 2": ["--parallel.pipeline=2"],
    "pipeline 2, untied": ["--parallel.pipeline=2", "--model.tied_head=false"],
    "data 2, ZeRO 1": ["--parallel.zero_stage=1"],
}


@pytest.mark.parametrize(
    "layout", ["tensor 2", "sequence parallel 2", "pipeline 2", "pipeline 2, untied", "data 2, ZeRO 1"]
)
def test_the_peer_trains_the_same_on_layouts(
    layout: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    launch = start_launch(small_data.run(tmp_path, LAYOUTS[layout]))
    found = run_on_ranks(both_losses, 2, {layout: str(launch.directory)})[0]
    ours, peer = found[layout]
    assert largest_difference(ours, peer) <= 1e-5


def test_profiled_time_is_told_by_names() -> None:
    kinds = {
        "aten::addmm": "GEMM",
        "sm90_xmma_gemm_bf16bf16_bf16f32": "GEMM",
        "nvjet_tst_128x256": "GEMM",
        "flash_fwd_kernel": "attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
        "ncclDevKernel_AllReduce_Sum_f32_RING_LL": "communication",
        "triton_poi_fused_gelu_0": "other kernels",
    }
    assert {name: kind_of(name) for name in kinds} == kinds
