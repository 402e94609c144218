"""Initial weights by name and seed, slices, and flat stretches of boxes."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.checkpoint.files.boxes import sub_boxes
from megatron_patches.parameters.info import ROWS_PER_BLOCK, derive_seed, draw
from megatron_patches.parameters.tensor_slice import TensorSlice
from tests.small_rows import row


def whole(shape: tuple[int, ...], name: str = "a", seed: int = 1) -> torch.Tensor:
    return draw(row(name, shape, deviation=0.5), TensorSlice.whole(shape), seed)


@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_slices_of_every_layout_are_cut_from_the_same_draw(dimension: int, parts: int) -> None:
    shape = (3 * ROWS_PER_BLOCK - 12, 12)  # blocks that no cut respects
    cuts = [TensorSlice.cut(shape, dimension, part, parts) for part in range(parts)]
    drawn = [draw(row("a", shape, deviation=0.5), cut, 1) for cut in cuts]
    assert torch.equal(torch.cat(drawn, dim=dimension), whole(shape))


def test_name_seed_and_row_decide_the_draw() -> None:
    drawn = [whole((600, 8)), whole((600, 8), name="b"), whole((600, 8), seed=2)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
    blocks = whole((3 * ROWS_PER_BLOCK, 8)).split(ROWS_PER_BLOCK)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(blocks, 2))
    assert abs(drawn[0].std().item() - 0.5) < 0.02 and abs(drawn[0].mean().item()) < 0.02


def test_the_draw_never_changes() -> None:
    """Golden values: a new version must give the runs of an old one the same weights."""
    assert derive_seed(7, "initial", "layers.0.weight", 0) == 2935121353233459947
    assert whole((2, 2)).flatten().tolist() == pytest.approx([0.0899594, 0.0286882, 0.9327439, -0.6187572])


def test_zeros_and_ones() -> None:
    assert draw(row("a", (3,), initial="ones"), TensorSlice.whole((3,)), 1).tolist() == [1, 1, 1]
    assert draw(row("a", (3,), initial="zeros"), TensorSlice.whole((3,)), 1).tolist() == [0, 0, 0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_flat_stretch_is_its_sub_boxes_in_order(shape: list[int], data: st.DataObject) -> None:
    box = TensorSlice(tuple(size + 3 for size in shape), tuple((2, 2 + size) for size in shape))
    start = data.draw(st.integers(0, box.elements))
    stop = data.draw(st.integers(start, box.elements))
    numbers = torch.arange(box.elements).view(box.shape)
    parts = list(sub_boxes(box, start, stop))
    found = [numbers[box.local(part.slice.box)].flatten() for part in parts]
    assert torch.cat([*found, torch.empty(0, dtype=torch.int64)]).tolist() == list(range(start, stop))
    assert [part.offset for part in parts] == [0, *itertools.accumulate(part.slice.elements for part in parts)][:-1]
    assert len(parts) <= 2 * len(shape) - 1


def test_intersection_of_slices() -> None:
    top, left = TensorSlice.cut((4, 6), 0, 0, 2), TensorSlice.cut((4, 6), 1, 0, 3)
    assert top.intersection(left) == ((0, 2), (0, 2))
    assert top.intersection(TensorSlice.cut((4, 6), 0, 1, 2)) is None
    assert top.elements == 12 and left.shape == (4, 2)
