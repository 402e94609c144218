"""Every patch of DeepSpeed is still needed: each test here fails when DeepSpeed has learned to do without it."""

import os
from pathlib import Path

import deepspeed
import pytest

from megatron_patches.config import RunConfig
from megatron_patches.deepspeed_patches import versions
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides


def engine_and_batch(config: RunConfig):  # type: ignore[no-untyped-def]
    """A started engine and its first global batch."""
    from data_tools.run_data import RunData
    from megatron_patches.engine.build import PRECISIONS, build_engine
    from megatron_patches.layout import plan_layout
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.run_directory import CHECKOUT
    from megatron_patches.train import training_batches

    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, PRECISIONS[config.training.precision])
    engine = build_engine(config, groups, StepRandomness(1, groups.coordinates, groups.device))
    return engine, training_batches(config, RunData(config.data, CHECKOUT), groups).at(0)


def tied_gradient_norms(config: RunConfig) -> tuple[float, float]:
    """Norm of the tied weight's gradient on this stage: after DeepSpeed's own summing, and after the patch's."""
    from megatron_patches.deepspeed_patches.gradients_only import run_gradients_only
    from megatron_patches.deepspeed_patches.tied_gradients import _gradient, sum_tied_gradients
    from megatron_patches.engine.pipeline_engine import pairs

    engine, batch = engine_and_batch(config)
    pipeline = engine.deepspeed
    [(weight, _)] = pipeline.module.get_tied_weights_and_groups()
    pipeline.set_dataiterator(pairs(batch))
    run_gradients_only(pipeline, len(batch))
    pipeline._exec_reduce_tied_grads()
    theirs = _gradient(pipeline, weight).norm().item()
    sum_tied_gradients(pipeline)
    return theirs, _gradient(pipeline, weight).norm().item()


def test_deepspeed_leaves_tied_gradients_of_bf16_zero_1_unsummed(small_data: SmallData, tmp_path: Path) -> None:
    words = overrides(parallel__pipeline=2, parallel__zero_stage=1, training__precision="bf16")
    found = run_on_ranks(tied_gradient_norms, 4, small_data.run(tmp_path, words))  # on 2 ranks stage 0 would do it
    (first, first_summed), (last, last_summed) = found[0], found[2]  # the same data on the first and the last stage
    assert first != pytest.approx(last, rel=0.01), "DeepSpeed sums them now: remove deepspeed_patches/tied_gradients.py"
    assert first_summed == pytest.approx(last_summed, rel=1e-6)


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
    words = overrides(parallel__pipeline=2, parallel__zero_stage=0)
    theirs, ours = run_on_ranks(deepspeed_clip_and_true_norm, 2, small_data.run(tmp_path, words))[0]
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
