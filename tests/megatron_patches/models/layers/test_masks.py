"""Prefixes and segments against dense attention written out: matrix product, mask, softmax."""

import itertools
import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from megatron_patches.models.attention.kernel_choice import KernelChoice, choose_kernel
from megatron_patches.models.attention.pattern import CAUSAL, AttentionPattern, Ranges
from megatron_patches.models.attention.segments import Segments, find_segments
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.layers.position import PositionEmbedding, PositionTable, RotaryPositions, alibi_slopes
from megatron_patches.models.layers.position_config import RotaryPositionConfig
from megatron_patches.models.layers.token_context import TokenContext
from megatron_patches.parallel.kernels import Kernels
from megatron_patches.parallel.layout import Layout
from megatron_patches.training.training_config import AttentionKernel
from tests.ranks import run_on_ranks

SEQUENCE, HEADS, SIZE = 12, 4, 8
KINDS = ["learned", "rotary", "alibi", "none"]
CASES = ["causal", "prefix", "documents"]


def model(kind: str, groups: int) -> GPTConfig:
    sizes = {"layers": 1, "hidden_size": HEADS * SIZE, "attention_heads": HEADS, "ffn_size": 40, "vocab_size": 32}
    return GPTConfig.model_validate(
        sizes | {"position_embedding": kind, "key_value_heads": groups, "query_key_norm": True, "init_std": 0.5}
    )


def context(case: str) -> TokenContext:
    """Two sequences: prefixes of 5 and 2 tokens, or documents that end before 4 and 9, or before 7."""
    if case == "causal":
        return TokenContext(CAUSAL)
    positions = torch.arange(SEQUENCE)
    if case == "prefix":
        stops = [torch.maximum(positions + 1, torch.tensor(prefix)) for prefix in (5, 2)]
        return TokenContext(Ranges(torch.stack([torch.stack([torch.zeros_like(s), s], dim=-1) for s in stops])))
    starts = torch.stack([torch.tensor([0] * 4 + [4] * 5 + [9] * 3), torch.tensor([0] * 7 + [7] * 5)])
    return TokenContext(find_segments(starts, causal=True), positions=positions - starts)


def first_and_last(pattern: AttentionPattern, sample: int, place: int) -> tuple[int, int]:
    """The range of keys that a token sees, each said in its own way."""
    if isinstance(pattern, Ranges):
        first, last = pattern.visible[sample, place].tolist()
        return first, last
    if isinstance(pattern, Segments):
        token = sample * SEQUENCE + place
        return max(cut for cut in pattern.cuts.tolist() if cut <= token) - sample * SEQUENCE, place + 1
    return 0, place + 1


def attended(layout: Layout, cases: list[tuple[str, int, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What our attention makes of random features, and what the reference makes of the same queries and keys."""
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    results = []
    for kind, heads, case in cases:
        plain = plain_model(model(kind, heads), SEQUENCE, groups, randomness, seed=3)
        layers = {layer.call.spec.name: layer.layer for layer in plain.layers.values()}
        attention, torch_seed = layers["layers.0"].attention, torch.manual_seed(4)
        hidden = torch.randn(SEQUENCE, 2, HEADS * SIZE, generator=torch_seed)
        with torch.no_grad():
            found = attention(hidden, context(case))
            query, key, value = attention._project(hidden)
            query, key = attention.query_norm(query), attention.key_norm(key)
            ours = slice(groups.coordinates.tensor * query.shape[1], (groups.coordinates.tensor + 1) * query.shape[1])
            expected = attention.output(dense_attention(kind, query, key, value, context(case), ours))
        results.append((found.numpy(), expected.numpy()))
    return results


def dense_attention(kind: str, query: Tensor, key: Tensor, value: Tensor, given: TokenContext, heads: slice) -> Tensor:
    """One score after the other: `[sequence, batch, features]`."""
    hook = RotaryPositions(RotaryPositionConfig(name="rotary"), SIZE) if kind == "rotary" else PositionEmbedding()
    query, key = hook.queries_and_keys(query, key, given)
    slopes = alibi_slopes(HEADS)[heads]
    output = torch.zeros_like(query)
    for sample, head, place in itertools.product(range(2), range(query.shape[1]), range(SEQUENCE)):
        shared = head * key.shape[1] // query.shape[1]
        first, last = first_and_last(given.pattern, sample, place)
        scores = key[sample, shared, first:last] @ query[sample, head, place] / math.sqrt(SIZE)
        if kind == "alibi":
            scores = scores - slopes[head] * (place - torch.arange(first, last)).abs()
        output[sample, head, place] = scores.softmax(-1) @ value[sample, shared, first:last]
    return output.permute(2, 0, 1, 3).flatten(2)


@cache
def _results(tensor: int) -> dict[tuple[str, int, str], list[tuple[np.ndarray, np.ndarray]]]:
    cases = list(itertools.product(KINDS, [HEADS, 2, 1], CASES))
    ranks = run_on_ranks(attended, tensor, Layout(tensor, 1, 1), cases)
    return dict(zip(cases, map(list, zip(*ranks, strict=True)), strict=True))


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_attention_equals_the_dense_reference(kind: str, case: str, tensor: int) -> None:
    for groups in (HEADS, 2, 1):
        for found, expected in _results(tensor)[kind, groups, case]:
            np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_changes_the_output(kind: str) -> None:
    causal, *masked = (_results(1)[kind, HEADS, case][0][0] for case in CASES)
    for found in masked:
        assert np.abs(found - causal).max() > 0.1


def large_tensors_kept(kind: str) -> list[tuple[int, ...]]:
    """Shapes of the tensors, each once, that three layers keep for the backward pass and that have a number a pair."""
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(Layout(1, 1, 1), torch.float32)
    config = model(kind, HEADS).model_copy(update={"layers": 3})
    plain = plain_model(config, SEQUENCE, groups, StepRandomness(0, groups.coordinates, groups.device))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape[-2:] == (SEQUENCE, SEQUENCE):
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        plain({"tokens": torch.zeros(2, SEQUENCE, dtype=torch.int64)})
    return [tuple(tensor.shape) for tensor in kept.values()]


def test_alibi_is_one_tensor_for_all_layers() -> None:
    """And the scores themselves, which have a batch too, are not written out: a fused kernel takes it."""
    assert run_on_ranks(large_tensors_kept, 1, "alibi")[0] == [(1, HEADS, SEQUENCE, SEQUENCE)]
    assert run_on_ranks(large_tensors_kept, 1, "none")[0] == []


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "kernel", "shares"),
    [
        ("cpu", torch.float32, None, "auto", True),
        ("cuda", torch.bfloat16, (8, 0), "auto", True),
        ("cuda", torch.float16, (9, 0), "flash", True),
        ("cuda", torch.float32, (9, 0), "auto", False),
        ("cuda", torch.float16, (7, 0), "auto", False),
        ("cuda", torch.bfloat16, (9, 0), "cudnn", False),
    ],
)
def test_keys_are_shared_where_a_kernel_takes_that(
    device: str,
    dtype: torch.dtype,
    capability: tuple[int, int],
    kernel: AttentionKernel,
    shares: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    groups = SimpleNamespace(device=torch.device(device), dtype=dtype, kernels=Kernels(attention=kernel))
    assert choose_kernel(groups, 64).shares_keys is shares  # type: ignore[arg-type]


def test_repeated_keys_give_the_same() -> None:
    shared, repeated = (run_on_ranks(grouped_attention, 1, shares)[0] for shares in (True, False))
    np.testing.assert_allclose(shared, repeated, atol=1e-6)


def grouped_attention(shares: bool) -> np.ndarray:
    """Two heads of keys for four of queries, as a kernel takes them or repeated."""
    from megatron_patches.models.layers.attention import SelfAttention
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness

    groups = start_process_groups(Layout(1, 1, 1), torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    attention = SelfAttention(model("none", 2), PositionEmbedding(), groups, randomness, "none")
    torch.manual_seed(5)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    assert attention.kernel.shares_keys
    attention.kernel = KernelChoice(shares_keys=shares)
    with torch.no_grad():
        return attention(torch.randn(SEQUENCE, 2, HEADS * SIZE), TokenContext(CAUSAL)).numpy()


def test_learned_positions_read_those_that_tokens_have() -> None:
    groups = SimpleNamespace(layout=Layout(1, 1, 1), coordinates=None, dtype=torch.float32)
    table = PositionTable(model("learned", 1), SEQUENCE, groups)  # type: ignore[arg-type]
    torch.nn.init.normal_(table.weight)
    hidden, given = torch.zeros(SEQUENCE, 2, HEADS * SIZE), context("documents")
    added = table(hidden, given)
    assert given.positions is not None
    for place, sample in itertools.product(range(SEQUENCE), range(2)):
        assert torch.equal(added[place, sample], table.weight[given.positions[sample, place]])
    assert torch.equal(table(hidden, TokenContext(CAUSAL))[:, 0], table.weight)
