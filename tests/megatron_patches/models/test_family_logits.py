"""The same logits as transformers' models with the same random weights, on every layout."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from megatron_patches.parallel.layout import Layout
from megatron_patches.run.parameter_count import count_parameters
from tests.megatron_patches.models.family import FAMILY, GPT2_124M, Reference, reference
from tests.ranks import run_on_ranks
from tests.small_model import causal_lengths

SMALL = [kind for kind in FAMILY if kind != "gpt2-124m"]
LAYOUTS = {
    "single": Layout(1, 1, 1),
    "tensor 2": Layout(2, 1, 1),
    "pipeline 2": Layout(1, 2, 1),
    "sequence parallel": Layout(2, 1, 1, sequence_parallel=True),
}

known = cache(reference)


def logits_of(layout: Layout, references: list[Reference]) -> list[np.ndarray | None]:
    """Our logits `[2, sequence, vocabulary]` of each model; None on ranks that are not on the last stage."""
    import deepspeed

    from megatron_patches.deepspeed_patches.no_shared_memory_op import skip_shared_memory_op
    from megatron_patches.parallel.process_groups import start_process_groups

    groups = start_process_groups(layout, torch.float32)
    if layout.pipeline > 1:
        skip_shared_memory_op()
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    run = _pipeline if layout.pipeline > 1 else _plain
    with torch.no_grad():
        return [run(each, groups) for each in references]


def _plain(given: Reference, groups):  # type: ignore[no-untyped-def]
    from megatron_patches.models.build import canonical_parameters
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model, text_inputs

    randomness = StepRandomness(0, groups.coordinates, groups.device)
    inputs = text_inputs(given.model)
    plain = plain_model(given.model, given.sequence_length, groups, randomness, inputs=inputs).eval()
    loaded = _load(canonical_parameters(plain), given.weights)
    assert loaded == given.shapes.keys()
    return _whole_vocabulary(plain({"tokens": torch.from_numpy(given.tokens)}), groups)


def _pipeline(given: Reference, groups):  # type: ignore[no-untyped-def]
    """Stage 0's layers, one message, stage 1's layers."""
    import torch.distributed as dist

    from megatron_patches.models.build import build_pipeline, canonical_parameters
    from megatron_patches.models.pipeline_partition import plan_stages
    from megatron_patches.objectives.loss import build_loss
    from megatron_patches.objectives.objective_config import CausalConfig
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import blueprint, text_inputs

    randomness = StepRandomness(0, groups.coordinates, groups.device)
    drawn = blueprint(given.model, given.sequence_length, groups, randomness, inputs=text_inputs(given.model))
    stages = plan_stages(given.model, causal_lengths(given.sequence_length), 2)
    stage = build_pipeline(drawn, stages, build_loss(CausalConfig(name="causal"), groups)).eval()
    loaded = _load(canonical_parameters(stage), given.weights)
    assert loaded < given.shapes.keys()
    if groups.last_stage:
        hidden = torch.empty(*given.tokens.T.shape, given.model.hidden_size)
        dist.recv(hidden, 0)
        return _whole_vocabulary(stage(hidden), groups)
    dist.send(stage(torch.from_numpy(given.tokens)).contiguous(), 1)
    return None


def _load(parameters, weights: dict[str, Tensor]) -> set[str]:  # type: ignore[no-untyped-def]
    from megatron_patches.parameters.info import info_of

    for name, parameter in parameters.items():
        box = info_of(parameter).slice
        values = weights[name].reshape(box.global_shape)[tuple(slice(*each) for each in box.box)]
        parameter.copy_(values.reshape(parameter.shape))
    return set(parameters)


def _whole_vocabulary(here: Tensor, groups) -> np.ndarray:  # type: ignore[no-untyped-def]
    import torch.distributed as dist

    parts = [torch.empty_like(here) for _ in range(groups.layout.tensor)]
    dist.all_gather(parts, here.contiguous(), group=groups.tensor_group)
    return torch.cat(parts, dim=-1).transpose(0, 1).numpy()


@cache
def _all_logits(layout: str) -> dict[str, list[np.ndarray]]:
    """By kind, what each rank of the last stage says; one start of the ranks for all of them."""
    kinds = [*SMALL, "gpt2-124m"] if layout == "single" else SMALL
    ranks = run_on_ranks(logits_of, LAYOUTS[layout].world_size, LAYOUTS[layout], [known(kind) for kind in kinds])
    return {kind: [rank[at] for rank in ranks if rank[at] is not None] for at, kind in enumerate(kinds)}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_equal_transformers(layout: str, kind: str) -> None:
    expected = known(kind).logits
    assert expected.std() > 0.5, "logits that are all alike would agree with anything"
    found = _all_logits(layout)[kind]
    assert found
    for logits in found:
        assert np.abs(logits - expected).max() < 1e-4


def test_gpt2_124m_equals_transformers() -> None:
    (logits,) = _all_logits("single")["gpt2-124m"]
    expected = known("gpt2-124m")
    assert np.abs(logits - expected.logits).max() < 1e-4
    assert expected.flat.numel() == 124_439_808
    assert count_parameters(GPT2_124M, causal_lengths(1024)).total == 124_439_808


@pytest.mark.parametrize("kind", SMALL)
def test_a_changed_weight_changes_the_logits(kind: str) -> None:
    """So that the comparison above would see an unused parameter."""
    given = known(kind)
    names = [name for name in given.shapes if not name.startswith(("layers.1", "layers.2", "layers.3"))]
    (found,) = run_on_ranks(logits_of, 1, Layout(1, 1, 1), [given.changed(name) for name in names])
    for name, logits in zip(names, found, strict=True):
        assert np.abs(logits - given.logits).max() > 1e-2, name
