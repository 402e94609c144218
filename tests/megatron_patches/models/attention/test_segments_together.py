"""All segments in one call, without the GPU that has the kernel: torch's own operator, with a kernel for a CPU that is
written here from its documentation; on a GPU that is not there its shapes alone."""

import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_patches.models.attention.attend import attend
from megatron_patches.models.attention.kernel_choice import KernelChoice
from megatron_patches.models.attention.pattern import CAUSAL, FULL
from megatron_patches.models.attention.segments import Segments, find_segments
from tests.dense_mask import attend_densely
from tests.megatron_patches.models.attention.test_segments import DOCUMENTS, HEADS, SIZE, inputs
from tests.ranks import run_on_ranks

TOGETHER = KernelChoice(variable_length=True)
PACKAGE = KernelChoice("flash_attn")


def weights(query: Tensor, key: Tensor, causal: bool, scale: float) -> Tensor:
    """`[heads, queries, keys]`, score by score."""
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1)


def written_out(query: Tensor, key: Tensor, value: Tensor, cuts: list[int], causal: bool, scale: float) -> Tensor:
    """Attention within `cuts` of `[tokens, heads, feature]`."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    return torch.cat(
        [
            torch.einsum("hqk,khd->qhd", weights(query[one:end], key[one:end], causal, scale), value[one:end])
            for one, end in itertools.pairwise(cuts)
        ]
    )


def gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, cuts: list[int], causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the same; an operator's kernel has no autograd."""
    groups, repeats = key.shape[1], query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    found: list[list[Tensor]] = [[], [], []]
    for one, end in itertools.pairwise(cuts):
        q, k, v, g = (each[one:end] for each in (query, key, value, grad))
        shares = weights(q, k, causal, scale)
        of_shares = torch.einsum("qhd,khd->hqk", g, v)
        of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * scale
        found[0].append(torch.einsum("hqk,khd->qhd", of_scores, k))
        found[1].append(torch.einsum("hqk,qhd->khd", of_scores, q).unflatten(1, (groups, repeats)).sum(2))
        found[2].append(torch.einsum("hqk,qhd->khd", shares, g).unflatten(1, (groups, repeats)).sum(2))
    of_query, of_key, of_value = map(torch.cat, found)
    return of_query, of_key, of_value


def give_the_operator_a_cpu_kernel() -> None:
    """`varlen_attn`, forward and backward, as its documentation has it: cuts, window, shared keys."""
    from torch.nn.attention import varlen

    def check(query: Tensor, key: Tensor, cuts: Tensor, others: Tensor, longest: int, window: list[int]) -> bool:
        assert cuts is others and cuts.dtype == torch.int32 and query.stride(-1) == key.stride(-1) == 1
        assert cuts[0] == 0 and cuts[-1] == len(query) and cuts.diff().max() <= longest
        assert window in ([-1, -1], [-1, 0])
        return window == [-1, 0]

    @varlen._varlen_attn.register_kernel("cpu")
    def forward(q, k, v, cuts, others, longest, _, causal, scale, window, grouped=False, *rest):  # type: ignore[no-untyped-def]
        assert grouped == (k.shape[1] < q.shape[1]) and not any(each is not None for each in rest)
        causal = check(q, k, cuts, others, longest, window)
        made = written_out(q, k, v, cuts.tolist(), causal, scale or SIZE**-0.5)
        sums, state = torch.zeros(q.shape[1], len(q)), torch.zeros(2, dtype=torch.uint64)
        return made.contiguous(), sums, state

    @varlen._varlen_attn_backward.register_kernel("cpu")
    def backward(grad, q, k, v, out, sums, cuts, others, longest, _, causal, state, scale, window):  # type: ignore[no-untyped-def]
        causal = check(q, k, cuts, others, longest, window)
        return gradients(grad, q, k, v, cuts.tolist(), causal, scale or SIZE**-0.5)


def differences(scale: float | None) -> list[float]:
    """Greatest difference to the dense mask, of outputs and gradients, of each case."""
    give_the_operator_a_cpu_kernel()
    found = []
    for causal, groups in itertools.product((False, True), (4, 2, 1)):
        tensors = inputs(groups, torch.float64)
        made = attend(*tensors, find_segments(DOCUMENTS, causal), kernel=TOGETHER, scale=scale)
        query = tensors[0] if scale is None else tensors[0] * scale * SIZE**0.5
        expected = attend_densely(query, *tensors[1:], DOCUMENTS, causal)
        factors = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad((each * factors).sum(), tensors) for each in (made, expected))
        pairs = zip([made, *ours], [expected, *theirs], strict=True)
        found.append(max((one - other).abs().max().item() for one, other in pairs))
    return found


@pytest.mark.parametrize("scale", [None, 0.3])
def test_torchs_operator_is_the_dense_mask(scale: float | None) -> None:
    assert max(run_on_ranks(differences, 1, scale)[0]) < 1e-12


@pytest.mark.parametrize("groups", [4, 2])
def test_the_operator_takes_the_shapes_on_a_gpu(groups: int) -> None:
    """As torch describes it to a compiler: no kernel runs, and nothing is allocated."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        query, key, value = (torch.empty(2, heads, 64, 32, dtype=torch.bfloat16, device="cuda")
                             for heads in (HEADS, groups, groups))  # fmt: skip
        segments = Segments(torch.empty(64, dtype=torch.int32, device="cuda"), 8, longest=64, causal=True)
        made = attend(query, key, value, segments, kernel=TOGETHER)
        assert (made.shape, made.device.type, made.dtype) == (query.shape, "cuda", torch.bfloat16)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """flash-attn's two functions by their signature; what they were given beside tensors."""
    asked: list[dict[str, Any]] = []

    def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):  # type: ignore[no-untyped-def]
        asked.append({"dropout": dropout_p, "causal": causal})
        ends = [each * q.shape[1] for each in range(len(q) + 1)]
        flat = (each.flatten(0, 1) for each in (q, k, v))
        return written_out(*flat, ends, causal, softmax_scale or SIZE**-0.5).unflatten(0, q.shape[:2])

    def flash_attn_varlen_func(  # type: ignore[no-untyped-def]
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False
    ):
        asked.append({"dropout": dropout_p, "causal": causal, "longest": (max_seqlen_q, max_seqlen_k)})
        assert cu_seqlens_q is cu_seqlens_k and cu_seqlens_q.dtype == torch.int32
        return written_out(q, k, v, cu_seqlens_q.tolist(), causal, softmax_scale or SIZE**-0.5)

    package = ModuleType("flash_attn")
    package.__dict__.update(flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    return asked


def test_the_package_is_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch)
    for causal, groups in itertools.product((False, True), (4, 2)):
        tensors = inputs(groups, torch.float64)
        made = attend(*tensors, find_segments(DOCUMENTS, causal), kernel=PACKAGE, dropout=0.1)
        torch.testing.assert_close(made, attend_densely(*tensors, DOCUMENTS, causal))
        assert asked.pop() == {"dropout": 0.1, "causal": causal, "longest": (12, 12)}
        pattern = CAUSAL if causal else FULL
        made = attend(*tensors, pattern, kernel=PACKAGE, scale=0.3)
        torch.testing.assert_close(made, attend(*tensors, pattern, scale=0.3))
        assert asked.pop() == {"dropout": 0.0, "causal": causal}
