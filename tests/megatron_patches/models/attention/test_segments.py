"""Segments: where they are found, once for each micro-batch, and attention of them against a dense mask."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_patches.models.attention.attend import attend
from megatron_patches.models.attention.kernel_choice import KernelChoice, choose_kernel
from megatron_patches.models.attention.segments import SegmentsOfPass, find_segments
from megatron_patches.models.attention.whole import ScoreBias
from megatron_patches.models.layers.position import alibi_slopes
from tests.dense_mask import attend_densely
from tests.live_bytes import watch

HEADS, SIZE = 4, 8
# a text that is a whole sample, texts of one length beside each other and apart, single tokens, and padding at an end
DOCUMENTS = torch.tensor(
    [
        [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3],
        [7, 7, 4, 4, 5, 6, 8, 8, 8, 8, 8, 8],
        [9] * 12,
        [1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1],
    ]
)
LENGTHS = [3, 4, 3, 2, 2, 2, 1, 1, 6, 12, 5, 7]


def test_segments_are_found_in_the_order_of_their_tokens() -> None:
    found = find_segments(DOCUMENTS, causal=False)
    assert found.cuts[: len(LENGTHS) + 1].diff().tolist() == LENGTHS
    assert found.longest == 12


def test_segments_of_one_length_come_together() -> None:
    documents = torch.tensor([[0, 0, 1, 2, 2, 2], [3, 4, 4, 4, 5, 5]])
    found = find_segments(documents, causal=False).by_length
    assert found.runs == ((2, 1), (2, 2), (2, 3))
    assert found.order is not None
    assert found.order.places.tolist() == [2, 6, 0, 1, 10, 11, 3, 4, 5, 7, 8, 9]
    assert found.order.places[found.order.back].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("documents", "runs"),
    [([[0] * 6, [0] * 6], (2, 6)), ([[*range(6)], [*range(6)]], (12, 1)), ([[0, 0, 0, 1, 1, 2]], (1, 3))],
)
def test_where_those_of_one_length_are_neighbours_nothing_moves(documents: Any, runs: tuple[int, int]) -> None:
    found = find_segments(torch.tensor(documents), causal=True).by_length
    assert found.order is None and found.runs[0] == runs


@pytest.mark.parametrize(("segments", "entries"), [(1, 64), (63, 64), (64, 128), (127, 128), (128, 256)])
def test_few_numbers_of_cuts_are_ever_made(segments: int, entries: int) -> None:
    """So that a compiled block sees few shapes; kernels take what is added for segments without a token."""
    cuts = find_segments(torch.arange(128).clamp(max=segments - 1)[None], causal=True).cuts
    assert cuts.dtype == torch.int32
    assert cuts.tolist() == [*range(segments), *[128] * (entries - segments)]


def test_the_layers_of_a_stage_share_what_the_first_finds() -> None:
    found, layers = SegmentsOfPass(causal=True), ["first", "second", "third"]
    assert len({id(found.of(DOCUMENTS, layer)) for layer in layers}) == 1


def test_a_buffer_that_is_used_again_is_read_again() -> None:
    """DeepSpeed's pipeline receives micro-batches in the same tensors, and torch need not notice: here it does not."""
    found, buffer = SegmentsOfPass(causal=False), torch.zeros(1, 6, dtype=torch.int64)
    for ends in (2, 3, 5):
        buffer.data[:] = torch.tensor([[0] * ends + [1] * (6 - ends)])
        for layer in ("first", "second"):
            assert found.of(buffer, layer).cuts[:3].tolist() == [0, ends, 6]


def test_another_tensor_is_read_whichever_layer_asks() -> None:
    found = SegmentsOfPass(causal=False)
    one = found.of(torch.zeros(1, 4, dtype=torch.int64), "first")
    other = found.of(torch.arange(4)[None], "second")
    assert (one.by_length.runs, other.by_length.runs) == (((1, 4),), ((4, 1),))


def inputs(groups: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(groups)
    shapes = [(len(DOCUMENTS), heads, DOCUMENTS.shape[1], SIZE) for heads in (HEADS, groups, groups)]
    return [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("kernel", ["auto", "math"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_a_call_for_each_segment_is_the_dense_mask(causal: bool, dtype: torch.dtype, close: float, kernel: Any) -> None:
    """Outputs, and gradients of queries, keys and values; with ALiBi too."""
    segments = find_segments(DOCUMENTS, causal)
    assert segments.by_length.order is not None, "tokens move, forth and back"
    for groups, biased in itertools.product((4, 2, 1), (False, True)):
        tensors = inputs(groups, dtype)
        slopes = torch.tensor(alibi_slopes(HEADS), dtype=dtype) if biased else None
        bias = None if slopes is None else ScoreBias(falling(slopes))
        made = attend(*tensors, segments, bias=bias, kernel=KernelChoice(kernel))
        expected = attend_densely(*tensors, DOCUMENTS, causal, slopes)
        torch.testing.assert_close(made, expected, atol=close, rtol=0)
        weights = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad((each * weights).sum(), tensors) for each in (made, expected))
        torch.testing.assert_close(ours, theirs, atol=3 * close, rtol=0)


def falling(slopes: Tensor) -> Tensor:
    places = torch.arange(DOCUMENTS.shape[1])
    return (-slopes[:, None, None] * (places - places[:, None]).abs())[None].to(slopes.dtype)


def test_dropped_weights_are_those_within_a_segment() -> None:
    """With values of one and half of the weights dropped, every token has a mean of one and other numbers than one."""
    ones = torch.ones(1, HEADS, 512, SIZE, dtype=torch.float64)
    segments = find_segments(torch.arange(512)[None] // 64, causal=False)
    torch.manual_seed(1)
    made = attend(ones, ones, ones, segments, dropout=0.5)
    assert 0.9 < made.mean() < 1.1 and made.std() > 0.05
    torch.manual_seed(1)
    assert torch.equal(made, attend(ones, ones, ones, segments, dropout=0.5))


def test_memory_grows_with_the_tokens_and_not_with_their_square() -> None:
    """A mask of 1,024 x 1,024 is 1 MB for a sample, and its scores 16 MB."""
    documents = torch.arange(1024)[None] // 16
    tensors = [torch.randn(1, HEADS, 1024, SIZE, requires_grad=True) for _ in range(3)]
    with watch() as watched:
        attend(*tensors, find_segments(documents, causal=True)).sum().backward()
    whole = tensors[0].nbytes
    assert whole < watched.peak < 12 * whole < 1024 * 1024 * 4
    with watch() as watched:
        attend_densely(*tensors, documents, causal=True).sum().backward()
    assert watched.peak > 1024 * 1024


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "kernel", "head", "whole"),
    [
        ("cpu", torch.bfloat16, None, "auto", 64, False),
        ("cuda", torch.bfloat16, (8, 0), "auto", 64, True),
        ("cuda", torch.float16, (9, 0), "flash", 128, True),
        ("cuda", torch.bfloat16, (9, 0), "auto", 60, False),
        ("cuda", torch.bfloat16, (9, 0), "auto", 512, False),
        ("cuda", torch.float32, (9, 0), "auto", 64, False),
        ("cuda", torch.float16, (7, 0), "auto", 64, False),
        ("cuda", torch.bfloat16, (9, 0), "math", 64, False),
        ("cuda", torch.bfloat16, (9, 0), "efficient", 64, False),
    ],
)
def test_where_one_call_takes_all_segments(
    device: str, dtype: torch.dtype, capability: Any, kernel: Any, head: int, whole: bool, monkeypatch: Any
) -> None:
    """And never with a bias or with dropped weights, which that kernel knows not."""
    from types import SimpleNamespace

    from megatron_patches.parallel.kernels import Kernels

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    groups: Any = SimpleNamespace(device=torch.device(device), dtype=dtype, kernels=Kernels(attention=kernel))
    choice = choose_kernel(groups, head)
    assert choice.takes_segments_whole(biased=False, dropout=0.0) is whole
    assert not choice.takes_segments_whole(biased=True, dropout=0.0)
    assert not choice.takes_segments_whole(biased=False, dropout=0.1)
