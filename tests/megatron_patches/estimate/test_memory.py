"""Estimated memory of a rank, part by part, against the tensors that an engine holds and against its peak."""

from pathlib import Path
from typing import Any

import pytest

from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from tests.live_bytes import watch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides

SIZES = overrides(model__layers=4, model__hidden_size=256, model__ffn_size=1024, training__micro_batch_size=2)
BF16 = overrides(training__precision="bf16")
LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "ZeRO 1 alone": (1, overrides(parallel__zero_stage=1)),
    "ZeRO 0, data 2": (2, overrides(parallel__zero_stage=0)),
    "ZeRO 1, data 2": (2, overrides(parallel__zero_stage=1)),
    "ZeRO 1, data 2, bf16": (2, [*overrides(parallel__zero_stage=1), *BF16]),
    "ZeRO 2, data 2, bf16": (2, [*overrides(parallel__zero_stage=2), *BF16]),
    "ZeRO 3, data 2": (2, overrides(parallel__zero_stage=3)),
    "tensor 2": (2, overrides(parallel__tensor=2, parallel__zero_stage=0)),
    "pipeline 2, full, bf16": (2, [*overrides(parallel__pipeline=2, training__recomputation="full"), *BF16]),
    "SGD": (1, ['--optimizer={"name": "sgd", "learning_rate": 0.1}', *overrides(parallel__zero_stage=0)]),
}


def held(config: RunConfig) -> dict[str, int]:
    """Bytes of weights, of the optimizer's state and of gradients on this rank, and the most at once in a step."""
    from tests.small_engine import SmallEngine

    with watch() as watched:
        small = SmallEngine(config)
        batches = [small.batches.at(0), small.batches.at(config.training.global_batch_size)]
        small.randomness.start_step(1)
        engine: Any = small.engine
        engine.forward_backward(batches[0])
        gradients = _bytes(engine.placement.gradients())
        engine.step(1e-3, engine.grad_norm())
        watched.peak = watched.live()
        engine.forward_backward(batches[1])
        engine.step(1e-3, engine.grad_norm())
        after = watched.live()
    small.batches.close()
    tensors = [fragment.tensor for fragment in engine.placement.fragments()]
    parameters = list(engine.parameters.values())
    state = [value for entry in engine.optimizer.state.values() for value in entry.values()]
    masters = [tensor for tensor in tensors if all(tensor is not parameter for parameter in parameters)]
    shares = [getattr(parameter, "ds_tensor", parameter) for parameter in parameters]
    return {
        "weights": _bytes(shares),
        "optimizer": _bytes([*state, *masters]),
        "gradients": gradients,
        "peak": watched.peak,
        "between steps": after,
    }


def _bytes(tensors: list[Any]) -> int:
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_and_peak(layout: str, small_data: SmallData, tmp_path: Path) -> None:
    processes, changes = LAYOUTS[layout]
    config = small_data.run(tmp_path, [*SIZES, *changes])
    plan = plan_layout(config, processes)
    estimate = estimate_memory(config, plan, device="cpu")
    for rank, found in enumerate(run_on_ranks(held, processes, config)):
        stage = estimate.stages[plan.coordinates(rank).pipeline]
        if config.parallel.zero_stage < 3:  # whose small parameters are whole beside their shares
            assert stage.weights == pytest.approx(found["weights"], rel=0.02)
        if plan.data == 1 or config.parallel.zero_stage >= 2:
            assert stage.gradients == pytest.approx(
                found["gradients"], rel=0.15
            )  # ZeRO 2 keeps whole tensors at the cut
        assert stage.optimizer == pytest.approx(found["optimizer"], rel=0.02)
        assert stage.state == pytest.approx(found["between steps"], rel=0.1)
        assert stage.total == pytest.approx(found["peak"], rel=0.1)
