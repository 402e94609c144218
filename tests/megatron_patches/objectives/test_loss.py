"""The loss against torch's own in fp64, on 1, 2 and 4 tensor-parallel ranks; what it keeps and what it sends."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from megatron_patches.objectives import loss as module
from megatron_patches.objectives.loss import build_loss, weighted_loss
from megatron_patches.objectives.objective_config import CausalConfig
from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides

ALONE: Any = SimpleNamespace(layout=SimpleNamespace(tensor=1), coordinates=SimpleNamespace(tensor=0))
SEQUENCE, BATCH, VOCABULARY = 5, 3, 24
CASES = [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.3, 1e-2)]


def logits_and_targets(dtype: torch.dtype = torch.float32) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Logits of some size, labels on every rank, weights of which some are 0."""
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(SEQUENCE, BATCH, VOCABULARY, generator=generator) * 8 + 5).to(dtype)
    labels = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE), generator=generator)
    weights = torch.rand(BATCH, SEQUENCE, generator=generator)
    return logits, (labels, weights * (weights > 0.2))


def reference(logits: Tensor, targets: tuple[Tensor, Tensor], smoothing: float, z_loss: float) -> tuple[float, Tensor]:
    """Loss and gradient of the logits, by torch in fp64."""
    labels, weights = targets
    exact = logits.detach().double().transpose(0, 1).requires_grad_()
    losses = functional.cross_entropy(
        exact.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=smoothing
    )
    losses = losses + z_loss * exact.flatten(0, 1).logsumexp(-1).square()
    total = (losses * weights.flatten().double()).sum()
    (gradient,) = torch.autograd.grad(total, exact)
    return total.item(), gradient.transpose(0, 1)


def ours(
    logits: Tensor, targets: tuple[Tensor, Tensor], groups: Any, case: tuple[float, float]
) -> tuple[float, Tensor]:
    """The same from `build_loss`."""
    logits = logits.detach().clone().requires_grad_()
    objective = CausalConfig(name="causal", label_smoothing=case[0], z_loss=case[1])
    loss = build_loss(objective, groups)(logits, targets)
    loss.backward()
    assert logits.grad is not None and logits.grad.dtype == logits.dtype and loss.dtype == torch.float32
    return loss.item(), logits.grad


@pytest.mark.parametrize("case", CASES)
def test_one_rank_against_torch(case: tuple[float, float]) -> None:
    logits, targets = logits_and_targets()
    loss, gradient = ours(logits, targets, ALONE, case)
    expected, expected_gradient = reference(logits, targets, *case)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-6, atol=1e-6)
    assert (gradient[targets[1].T == 0] == 0).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_narrow_logits_are_computed_with_in_fp32(
    case: tuple[float, float], dtype: torch.dtype, rounding: float
) -> None:
    """The loss is that of the rounded logits; the gradient is rounded once, at the end."""
    logits, targets = logits_and_targets(dtype)
    loss, gradient = ours(logits, targets, ALONE, case)
    expected, expected_gradient = reference(logits, targets, *case)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1.01 * rounding, atol=1e-6)


def test_gradient_by_differences() -> None:
    logits, (labels, weights) = logits_and_targets(torch.float64)
    logits = (logits / 8).requires_grad_()
    targets = (labels, weights.double())
    assert torch.autograd.gradcheck(lambda given: weighted_loss(given, targets, ALONE, 0.3, 1e-2), [logits])


def test_large_logits_do_not_overflow() -> None:
    logits, targets = logits_and_targets()
    loss, gradient = ours(logits * 1e4, targets, ALONE, (0.1, 0.0))
    assert loss == pytest.approx(reference(logits * 1e4, targets, 0.1, 0.0)[0], rel=1e-6)
    assert gradient.isfinite().all()


def test_parts_of_the_sequence_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = logits_and_targets()
    whole = ours(logits, targets, ALONE, (0.3, 1e-2))
    for elements in (1, 2 * BATCH * VOCABULARY):
        monkeypatch.setitem(module.ELEMENTS_AT_ONCE, "cpu", elements)
        parts = ours(logits, targets, ALONE, (0.3, 1e-2))
        assert parts[0] == whole[0] and torch.equal(parts[1], whole[1])


def losses_on_ranks() -> list[tuple[float, list[Any], list[int]]]:
    """For each case: loss, gradient of this rank's slice, all-reduces after forward and after backward pass."""
    import torch.distributed as dist

    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    tensor = int(os.environ["WORLD_SIZE"])
    groups = start_process_groups(Layout(tensor=tensor, pipeline=1, data=1), torch.float32)
    logits, targets = logits_and_targets()
    here = logits.chunk(tensor, dim=-1)[groups.coordinates.tensor].clone().requires_grad_()
    send, sent = dist.all_reduce, []

    def count(values: Tensor, **others: Any) -> None:
        sent.append(values.numel())
        send(values, **others)

    dist.all_reduce = count
    found = []
    for smoothing, z_loss in CASES:
        sent.clear()
        loss = weighted_loss(here, targets, groups, smoothing, z_loss)
        forward = len(sent)
        (gradient,) = torch.autograd.grad(loss, here)
        found.append((loss.item(), gradient.tolist(), [forward, len(sent)]))
    return found


@pytest.mark.parametrize("tensor", [2, 4])
def test_tensor_ranks_against_torch(tensor: int) -> None:
    logits, targets = logits_and_targets()
    ranks = run_on_ranks(losses_on_ranks, tensor)
    for number, case in enumerate(CASES):
        expected, expected_gradient = reference(logits, targets, *case)
        for loss, _, messages in (found[number] for found in ranks):
            assert loss == pytest.approx(expected, rel=1e-6)
            assert messages == [2, 2], "two small messages in the forward pass, none in the backward pass"
        gradient = torch.cat([torch.tensor(found[number][1]) for found in ranks], dim=-1)
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-6, atol=1e-6)


def test_the_logits_are_kept_as_they_are_and_nothing_else_of_their_size() -> None:
    logits = torch.zeros(8, 2, 4096, dtype=torch.bfloat16, requires_grad=True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    targets = (torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        weighted_loss(logits, targets, ALONE, 0.1, 1e-4)
    large = [tensor for tensor in kept if tensor.data_ptr() == logits.data_ptr()]
    rest = sum(tensor.untyped_storage().nbytes() for tensor in kept if tensor.data_ptr() != logits.data_ptr())
    assert [tensor.dtype for tensor in large] == [torch.bfloat16]
    assert rest < 0.02 * logits.nbytes


def evaluated_and_trained(config: RunConfig) -> tuple[float, float]:
    """Loss of the first batch as validation and then as training computes it, before any update."""
    from tests.megatron_patches.engine.test_deepspeed_patches import engine_and_batch

    engine, batch = engine_and_batch(config)
    return engine.evaluate(batch)["loss"].mean, engine.forward_backward(batch).item()


@pytest.mark.parametrize("arguments", [[], overrides(parallel__pipeline=2)])
def test_validation_is_the_plain_likelihood(arguments: list[str], small_data: SmallData, tmp_path: Path) -> None:
    ranks = 2 if arguments else 1
    (plain, trained), *_ = run_on_ranks(evaluated_and_trained, ranks, small_data.run(tmp_path, arguments))
    assert plain == pytest.approx(trained, rel=1e-6)
    more = [*arguments, "--objective={name: causal, label_smoothing: 0.1, z_loss: 0.01}"]
    (evaluated, trained), *_ = run_on_ranks(evaluated_and_trained, ranks, small_data.run(tmp_path, more))
    assert evaluated == pytest.approx(plain, rel=1e-6)
    assert trained > plain + 0.1, "neither smoothing nor z-loss is trained"
