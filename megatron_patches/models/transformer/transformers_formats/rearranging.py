"""Ways in which a parameter of ours and tensors of theirs hold the same numbers. Each is a pair of functions that
undo each other, built of reshaping alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from megatron_patches.models.interface.transformers_format import TensorPair

if TYPE_CHECKING:
    from torch import Tensor


def same(ours: str, theirs: str, shape: tuple[int, ...]) -> TensorPair:
    """The same numbers in the same order.

    Args:
        shape: of our row; theirs is a matrix or a vector of it: all dimensions but the last of a weight are its rows.
    """
    matrix = ours.endswith("weight") and len(shape) > 1

    def split(tensor: Tensor) -> list[Tensor]:
        return [tensor.reshape(-1, shape[-1]) if matrix else tensor.reshape(-1)]

    return TensorPair(ours, (theirs,), split, lambda parts: parts[0].reshape(shape))


def vocabulary(ours: str, theirs: str, rows: int) -> TensorPair:
    """A table without the rows that only pad it.

    Args:
        rows: token ids that the model knows.
    """
    return TensorPair(ours, (theirs,), lambda tensor: [tensor[:rows]], lambda parts: parts[0])


def transposed(ours: str, theirs: str, shape: tuple[int, ...]) -> TensorPair:
    """A matrix that they store as (in, out), as the Conv1D of GPT-2.

    Args:
        shape: of our row, (..., in).
    """

    def split(tensor: Tensor) -> list[Tensor]:
        return [tensor.reshape(-1, shape[-1]).T]

    return TensorPair(ours, (theirs,), split, lambda parts: parts[0].T.reshape(shape))


def stacked(ours: str, theirs: Sequence[str], shape: tuple[int, ...], dimension: int) -> TensorPair:
    """A parameter that they store as several matrices (or vectors), one for each entry of a dimension of ours.

    Args:
        shape: of our row.
        dimension: that of (query, key, value), or of (gate, up).
    """
    matrix = ours.endswith("weight")

    def split(tensor: Tensor) -> list[Tensor]:
        parts = tensor.unbind(dimension)
        return [part.reshape(-1, shape[-1]) if matrix else part.reshape(-1) for part in parts]

    def join(parts: Sequence[Tensor]) -> Tensor:
        of_one = [part.reshape(*shape[:dimension], 1, *shape[dimension + 1 :]) for part in parts]
        joined = of_one[0].new_empty(shape)
        for index, part in enumerate(of_one):
            joined.narrow(dimension, index, 1).copy_(part)
        return joined

    return TensorPair(ours, tuple(theirs), split, join)


def query_key_value_first(ours: str, theirs: str, shape: tuple[int, ...], transpose: bool) -> TensorPair:
    """A fused matrix or bias of ours, (head; query, key, value; feature; ...), that they order (query, key, value;
    head; feature; ...).

    Args:
        shape: of our row.
        transpose: they store the matrix as (in, out).
    """
    matrix = ours.endswith("weight")
    turned = (shape[1], shape[0], *shape[2:])

    def split(tensor: Tensor) -> list[Tensor]:
        ordered = tensor.transpose(0, 1)
        if not matrix:
            return [ordered.reshape(-1)]
        rows = ordered.reshape(-1, shape[-1])
        return [rows.T if transpose else rows]

    def join(parts: Sequence[Tensor]) -> Tensor:
        rows = parts[0].T if matrix and transpose else parts[0]
        return rows.reshape(turned).transpose(0, 1)

    return TensorPair(ours, (theirs,), split, join)
