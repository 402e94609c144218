"""Gradients of every parameter under tensor and sequence parallelism equal those of a single process."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from megatron_patches.batch.fields import DOCUMENTS as OF_DOCUMENTS
from megatron_patches.batch.fields import POSITIONS, TOKENS, ModelInputs
from megatron_patches.megatron_core_patches.cpu_as_current_device import use_cpu_where_there_is_no_cuda
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.parallel.layout import Layout
from tests.ranks import RankFailed, run_on_ranks

SEQUENCE = 8
SIZES = {"layers": 2, "hidden_size": 32, "attention_heads": 8, "ffn_size": 48, "vocab_size": 48, "init_std": 0.2}
MODELS: dict[str, dict[str, object]] = {
    "gpt2": {},
    "bloom": {"position_embedding": "alibi", "embedding_norm": True},
    "llama": {
        "key_value_heads": 2, "position_embedding": "rotary", "activation": "swiglu", "norm": "rmsnorm",
        "norm_bias": False, "query_key_norm": True, "tied_head": False,
    },
    "post": {"norm_placement": "post", "key_value_heads": 1, "activation": "liglu", "logit_soft_cap": 2.0},
    "parallel": {
        "parallel_residual": True, "query_key_norm": True, "activation": "geglu", "attention_bias": False,
        "position_embedding": {"name": "rotary", "fraction": 0.5},
    },
}  # fmt: skip
BITFIT = "only biases are trained"
MODELS[BITFIT] = {"embedding_norm": True, "position_embedding": "rotary"}
DOCUMENTS = "positions and attention start anew in the middle"
MODELS[DOCUMENTS] = {}
WITH_DOCUMENTS = ModelInputs((TOKENS, POSITIONS, OF_DOCUMENTS), "causal_documents")
LAYOUTS = {
    "tensor 2": Layout(2, 1, 1),
    "tensor 4": Layout(4, 1, 1),
    "sequence parallel 2": Layout(2, 1, 1, sequence_parallel=True),
    "sequence parallel 4": Layout(4, 1, 1, sequence_parallel=True),
}
Gradients = dict[str, np.ndarray]


def gradients_of(layout: Layout, without_patch: bool = False) -> list[tuple[float, Gradients]]:
    """Each model's loss and whole gradients by name; biases are random, or they would hide their gradient's paths."""
    import torch.distributed as dist

    from megatron_patches.models.build import canonical_parameters
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.info import draw, info_of
    from tests.small_model import PLAIN_INPUTS, plain_model

    unpatched = torch.cuda.current_device
    groups = start_process_groups(layout, torch.float32)
    if without_patch:
        torch.cuda.current_device = unpatched
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    tokens, labels = torch.randint(48, (2, 2, SEQUENCE), generator=torch.Generator().manual_seed(1))

    positions = torch.arange(SEQUENCE).expand(2, -1)
    starts = torch.tensor([[0] * 3 + [3] * 5, [0] * 6 + [6] * 2])
    restart = {"tokens": tokens, "positions": positions - starts, "documents": starts}

    def whole(parameter: torch.nn.Parameter) -> np.ndarray:
        info, gradient = info_of(parameter), parameter.grad
        assert gradient is not None
        everywhere = torch.zeros(info.slice.global_shape)
        if not info.tensor_replicated or info.partial_gradient or groups.coordinates.tensor == 0:
            everywhere[tuple(slice(*each) for each in info.slice.box)] = gradient.view(info.slice.shape)
        dist.all_reduce(everywhere, group=groups.tensor_group)
        return everywhere.numpy()

    results = []
    for kind, switches in MODELS.items():
        model = GPTConfig.model_validate(SIZES | switches)
        inputs = (
            ModelInputs((TOKENS, POSITIONS, OF_DOCUMENTS), "causal_documents") if kind == DOCUMENTS else PLAIN_INPUTS
        )
        plain = plain_model(model, SEQUENCE, groups, randomness, inputs=inputs)
        named = canonical_parameters(plain)
        for name, parameter in named.items():
            if name.endswith("bias"):
                info = info_of(parameter)
                row = replace(info.row, initial="normal", deviation=0.2)
                parameter.data.copy_(draw(row, info.slice, 0).view(parameter.shape))
            parameter.requires_grad_(kind != BITFIT or name.endswith("bias"))
        loss = weighted_loss(
            plain(restart if kind == DOCUMENTS else {"tokens": tokens}),
            (labels, torch.ones(labels.shape)),
            groups,
        )
        loss.backward()
        results.append(
            (loss.item(), {name: whole(parameter) for name, parameter in named.items() if parameter.requires_grad})
        )
    return results


single = cache(lambda: dict(zip(MODELS, run_on_ranks(gradients_of, 1, Layout(1, 1, 1))[0], strict=True)))
shared = cache(
    lambda layout: [
        dict(zip(MODELS, rank, strict=True))
        for rank in run_on_ranks(gradients_of, LAYOUTS[layout].world_size, LAYOUTS[layout])
    ]
)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_equal_the_single_process(layout: str, kind: str) -> None:
    loss, expected = single()[kind]
    for rank in shared(layout):
        found_loss, found = rank[kind]
        assert found_loss == pytest.approx(loss, rel=1e-6)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            scale = np.abs(gradient).max()
            assert scale > 1e-4, f"{name} has no gradient to compare"
            np.testing.assert_allclose(found[name], gradient, atol=3e-5 * scale, err_msg=name)


def test_the_patch_for_sequence_parallelism_is_needed_without_cuda_and_does_nothing_with_it() -> None:
    if torch.cuda.is_available():
        before = torch.cuda.current_device
        use_cpu_where_there_is_no_cuda()
        assert torch.cuda.current_device is before
        return
    with pytest.raises(RankFailed, match="CUDA"):
        run_on_ranks(gradients_of, 2, LAYOUTS["sequence parallel 2"], True)
