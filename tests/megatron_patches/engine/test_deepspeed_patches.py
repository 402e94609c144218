"""Every patch of DeepSpeed is still needed: each test here fails when DeepSpeed has learned to do without it."""

import os
from pathlib import Path
from typing import Any

import deepspeed
import pytest

from megatron_patches.deepspeed_patches import versions
from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_engine import SmallEngine, Steps, groups_of
from tests.small_training import SmallData, overrides


def engine_and_batch(config: RunConfig):  # type: ignore[no-untyped-def]
    """A started engine and its first global batch."""
    from data_tools.run_data import RunData
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.engine.build import build_engine
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.run.layout import plan_layout
    from megatron_patches.training.train import training_batches

    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[config.training.precision])
    engine = build_engine(config, groups, StepRandomness(1, groups.coordinates, groups.device))
    return engine, training_batches(
        config, RunData(config.data, CHECKOUT, config.lengths, config.place_after), groups
    ).at(0)


def tied_gradient_norms(config: RunConfig, patched: bool) -> float:
    """Norm of the tied weight's gradient on this stage after DeepSpeed has summed it over stages."""
    from megatron_patches.deepspeed_patches.gradients_only import run_gradients_only
    from megatron_patches.engine import deepspeed_engine
    from megatron_patches.engine.pipeline_engine import pairs

    with pytest.MonkeyPatch.context() as patch:
        if not patched:
            patch.setattr(deepspeed_engine, "FlatGradients", lambda *_, **__: None)
        engine, batch = engine_and_batch(config)
    pipeline = engine.deepspeed
    [(weight, _)] = pipeline.module.get_tied_weights_and_groups()
    pipeline.set_dataiterator(pairs(batch, engine._first))
    run_gradients_only(pipeline, len(batch))
    pipeline._exec_reduce_tied_grads()
    return (weight.grad if patched else weight.grad_accum).norm().item()


@pytest.mark.parametrize("patched", [True, False])
def test_tied_gradients_of_bf16_are_where_deepspeed_sums_them(
    small_data: SmallData, tmp_path: Path, patched: bool
) -> None:
    """Left to itself ZeRO 1 moves them to `grad_accum`, and the sum over stages is left out without a word."""
    arguments = overrides(parallel__pipeline=2, parallel__zero_stage=1, training__precision="bf16")
    found = run_on_ranks(tied_gradient_norms, 4, small_data.run(tmp_path, arguments), patched)
    first, last = found[0], found[2]  # the same data on the first and the last stage
    assert (first == pytest.approx(last, rel=1e-6)) == patched


Trained = tuple[Steps, list[float], int, int]
"""losses and norms of 5 steps, the sum of each parameter, how often DeepSpeed made one tensor of many, and how many
buckets were on their way before all gradients were there"""


def train_all_ways(config: RunConfig) -> dict[str, Trained]:
    groups = groups_of(config)
    return {way: train_with(config, way, groups) for way in ("DeepSpeed's", "all-reduced", "scattered", "early")}


def train_with(config: RunConfig, gradients: str, groups: Any) -> Trained:
    from megatron_patches.deepspeed_patches import early_reduction
    from megatron_patches.engine import deepspeed_engine

    flat = deepspeed_engine.FlatGradients
    ways = {
        "all-reduced": lambda zero, *_: flat(zero, scatter=False),
        "scattered": lambda zero, *_: flat(zero, scatter=True),
        "early": lambda zero, *_: flat(zero, scatter=False, overlap=True),
        "DeepSpeed's": lambda *_: None,
    }
    started, finish = [], early_reduction.EarlyReduction.finish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            early_reduction.EarlyReduction, "finish", lambda self: started.append(self._started) or finish(self)
        )
        steps, sums, copies = _train(config, ways[gradients], groups)
    return steps, sums, copies, sum(started)


def _train(config: RunConfig, way: Any, groups: Any) -> tuple[Steps, list[float], int]:
    from megatron_patches.deepspeed_patches import early_reduction
    from megatron_patches.engine import deepspeed_engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deepspeed_engine, "FlatGradients", way)
        patch.setattr(early_reduction, "BUCKET_ELEMENTS", 5000)  # of 28,000: several buckets
        small = SmallEngine(config, groups)
    zero = small.engine.deepspeed.optimizer  # type: ignore[attr-defined]
    copies, flatten = [], zero.flatten
    zero.flatten = lambda tensors: copies.append(1) or flatten(tensors)
    steps = small.train(5)
    small.batches.close()
    return steps, [piece.tensor.float().sum().item() for piece in small.engine.state()], len(copies)


@pytest.mark.parametrize(
    "arguments",
    [
        overrides(training__precision="fp32", training__micro_batch_size=4),
        overrides(training__precision="bf16", training__micro_batch_size=2),
        overrides(training__precision="fp32", training__trainable="['*.bias']", optimizer__weight_decay=0),
    ],
    ids=["fp32", "bf16, accumulation", "biases alone"],
)
def test_flat_gradients_change_no_result_and_save_the_copies(
    small_data: SmallData, tmp_path: Path, arguments: list[str]
) -> None:
    config = small_data.run(tmp_path, [*overrides(parallel__zero_stage=1), *arguments])
    found = run_on_ranks(train_all_ways, 2, config)[0]
    theirs = found.pop("DeepSpeed's")
    for way, ours in found.items():
        assert ours[:2] == theirs[:2], way
        assert ours[2] == 0
        assert (ours[3] >= 5) == (way == "early"), "in each step something went before the end"
    assert theirs[2] > 0, "DeepSpeed makes no copies now: remove deepspeed_patches/flat_gradients.py"


def test_a_gradient_that_comes_too_late_is_no_silent_loss() -> None:
    """A bucket on its way must not be added to: reentrant passes through one parameter would."""
    import torch

    from megatron_patches.deepspeed_patches.early_reduction import EarlyReduction

    class Zero:
        real_dp_process_group = (None,)

        def is_gradient_accumulation_boundary(self) -> bool:
            return True

    class Sent(EarlyReduction):
        def _start_next(self) -> None:
            self._buckets[self._started].work = object()
            self._started += 1

    flat, parameters = torch.zeros(6), [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    early = Sent(Zero(), [flat], [[(parameters[0], flat[:3]), (parameters[1], flat[3:])]])
    for parameter in reversed(parameters):
        early.count(parameter, 0)
    with pytest.raises(RuntimeError, match=r"on its way.*overlap_reduction"):
        early.count(parameters[0], 0)


def deepspeed_clip_and_true_norm(config: RunConfig) -> tuple[float, float]:
    """The norm that DeepSpeed's clip would use under ZeRO 0, and the engine's."""
    from deepspeed.runtime.utils import clip_grad_norm_

    engine, batch = engine_and_batch(config)
    engine.forward_backward(batch)
    ours = engine.grad_norm().item()
    pipeline = engine.deepspeed
    theirs = clip_grad_norm_(pipeline.module.parameters(), max_norm=1e9, mpu=pipeline.mpu)
    return float(theirs), ours


def test_deepspeeds_norm_of_a_pipeline_is_not_the_models(small_data: SmallData, tmp_path: Path) -> None:
    """Why the norm is ours (deepspeed_engine.py), and why the schedule must end before DeepSpeed's step."""
    arguments = overrides(parallel__pipeline=2, parallel__zero_stage=0)
    theirs, ours = run_on_ranks(deepspeed_clip_and_true_norm, 2, small_data.run(tmp_path, arguments))[0]
    single = run_on_ranks(deepspeed_clip_and_true_norm, 1, small_data.run(tmp_path, overrides(parallel__zero_stage=0)))
    assert ours == pytest.approx(single[0][1], rel=1e-5)
    assert theirs != pytest.approx(ours, rel=0.01), "DeepSpeed's clip is right now: it could be used"


def norms_in_a_step(config: RunConfig) -> tuple[int, int]:
    """How often the stage 3 optimizer computes a norm in a step: with the patch, and left to itself."""
    engine, batch = engine_and_batch(config)
    zero, counts = engine.deepspeed.optimizer, []
    for patched in (True, False):
        calls: list[int] = []
        if not patched:
            del zero._get_norm_groups
        compute = zero.get_grad_norm_direct
        zero.get_grad_norm_direct = lambda *given, compute=compute, calls=calls: calls.append(1) or compute(*given)
        engine.forward_backward(batch)
        engine.step(1e-3, engine.grad_norm())
        counts.append(len(calls))
    return counts[0], counts[1]


def test_stage_3_would_compute_a_norm_of_its_own(small_data: SmallData, tmp_path: Path) -> None:
    patched, unpatched = run_on_ranks(norms_in_a_step, 1, small_data.run(tmp_path, overrides(parallel__zero_stage=3)))[
        0
    ]
    assert patched == 0
    assert unpatched > 0, "DeepSpeed leaves it out now: remove deepspeed_patches/no_second_norm.py"


def test_deepspeed_would_compile_an_extension_at_start() -> None:
    """Removed by no_shared_memory_op: `build_shm_op` is called by every TorchBackend on a CPU."""
    import inspect

    from deepspeed.comm.torch import TorchBackend

    assert "build_shm_op()" in inspect.getsource(TorchBackend.__init__)


def test_another_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    versions.require_tested_deepspeed()
    monkeypatch.setattr(deepspeed, "__version__", "0.20.0")
    with pytest.raises(RuntimeError, match=r"0\.20\.0 is installed.*pip install"):
        versions.require_tested_deepspeed()
