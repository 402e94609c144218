"""Recomputation keeps less and changes nothing, dropout included."""

import itertools
from functools import cache
from typing import Any

import pytest
import torch

from megatron_patches.models.attention.pattern import CAUSAL
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.layers.token_context import TokenContext
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.row import stack_of
from tests.ranks import run_on_ranks

KINDS = ("none", "selective", "full")
SEQUENCE, BATCH, HIDDEN = 64, 2, 64
SIZES = {"layers": 3, "hidden_size": HIDDEN, "attention_heads": 4, "ffn_size": 4 * HIDDEN, "vocab_size": 64}
WIDE = 16 * HIDDEN  # an MLP's features, beside which its input is small
DROPOUTS = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "embedding_dropout": 0.2}
MODELS = {
    "gpt2": {},
    "llama": {"activation": "swiglu", "position_embedding": "rotary", "key_value_heads": 2, "query_key_norm": True},
    "bloom": {"position_embedding": "alibi"},
}
LAYOUTS = {
    "single": Layout(1, 1, 1),
    "tensor 2": Layout(2, 1, 1),
    "sequence parallel 2": Layout(2, 1, 1, sequence_parallel=True),
}


def bytes_kept(layers: torch.nn.Module, stream: torch.Tensor) -> int:
    """Bytes that a forward pass has allocated and that live on for its backward pass, other than the result."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    sizes: dict[int, tuple[StorageWeakRef, int]] = {}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            read = {each.untyped_storage()._cdata for each in tree_leaves(args) if isinstance(each, torch.Tensor)}
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in read:  # no view
                    storage = tensor.untyped_storage()
                    sizes[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            return result

    with Watch():
        result = layers(stream)
    for known in (result, *layers.parameters()):
        sizes.pop(known.untyped_storage()._cdata, None)
    return sum(size for reference, size in sizes.values() if not reference.expired())


class Causally(torch.nn.Sequential):
    """Blocks one after the other, whose tokens see all before them."""

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        for block in self:
            stream = block(stream, TokenContext(CAUSAL))
        return stream


def step(layout: Layout, kind: str) -> dict[str, tuple[int, list[Any], list[Any]]]:
    """Of each model: bytes that the blocks' forward passes keep, its gradients, and random numbers drawn afterwards."""
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    tokens = torch.randint(64, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(1))
    results = {}
    for name, switches in MODELS.items():
        model = GPTConfig.model_validate(SIZES | DROPOUTS | switches)
        plain = plain_model(model, SEQUENCE, groups, randomness, kind)
        blocks = [layer.layer for layer in plain.layers.values() if stack_of(layer.call.spec.name)]
        randomness.start_step(1)
        stream = torch.randn(SEQUENCE // (layout.tensor if layout.sequence_parallel else 1), BATCH, HIDDEN)
        kept = bytes_kept(Causally(*blocks), stream)
        randomness.start_step(2)
        for _ in range(2):  # micro-batches: the second one must not find the streams where a recomputation left them
            weighted_loss(plain({"tokens": tokens}), (tokens, torch.ones(tokens.shape)), groups).backward()
        with randomness.split_features():
            drawn = torch.rand(3)
        numbers = [*torch.rand(3).tolist(), *drawn.tolist()]
        gradients = [parameter.grad.numpy() for parameter in plain.parameters() if parameter.grad is not None]
        results[name] = kept, gradients, numbers
    return results


def mlp_bytes(layout: Layout) -> dict[tuple[str, str], int]:
    """Bytes that an MLP alone keeps, by activation and kind of recomputation."""
    from megatron_patches.models.layers.mlp import MLP
    from megatron_patches.parallel.process_groups import start_process_groups

    groups = start_process_groups(layout, torch.float32)
    found = {}
    for activation, kind in itertools.product(("gelu", "swiglu"), ("none", "selective")):
        mlp = MLP(GPTConfig.model_validate(SIZES | {"activation": activation, "ffn_size": WIDE}), groups, kind)
        found[activation, kind] = bytes_kept(mlp, torch.randn(SEQUENCE, BATCH, HIDDEN))
    return found


steps = cache(lambda layout, kind: run_on_ranks(step, LAYOUTS[layout].world_size, LAYOUTS[layout], kind))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_less_is_kept(model: str, layout: str) -> None:
    none, selective, full = (steps(layout, kind)[0][model][0] for kind in KINDS)
    assert full <= 4 * SIZES["layers"] * SEQUENCE * BATCH * HIDDEN, "a block's input"
    assert full < 0.2 * selective < 0.2 * 0.6 * none


@pytest.mark.parametrize("tensor", [1, 2])
def test_the_activation_of_an_mlp_is_not_kept(tensor: int) -> None:
    """Nothing but the result of the first matrix is: of a gated one both halves."""
    features = 4 * SEQUENCE * BATCH * WIDE // tensor
    for found in run_on_ranks(mlp_bytes, tensor, Layout(tensor, 1, 1)):
        small = 2 * 4 * SEQUENCE * BATCH * HIDDEN  # the input, and a sum that a message may still hold
        for (activation, kind), size in {("gelu", "none"): 2, ("gelu", "selective"): 1,
                                         ("swiglu", "none"): 4, ("swiglu", "selective"): 2}.items():  # fmt: skip
            assert size * features <= found[activation, kind] <= size * features + small, (activation, kind)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["selective", "full"])
def test_gradients_stay_equal_with_dropout(kind: str, model: str, layout: str) -> None:
    for rank, plain_rank in zip(steps(layout, kind), steps(layout, "none"), strict=True):
        _, found, numbers = rank[model]
        _, expected, numbers_without = plain_rank[model]
        assert len(found) == len(expected) > 0
        for gradient, reference in zip(found, expected, strict=True):
            assert (gradient == reference).all()
        assert numbers == numbers_without, "a recomputation moves no stream"
