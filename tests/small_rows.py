"""Rows of parameters without an architecture, for tests of what goes by them."""

from typing import Any

from megatron_patches.parameters.info import ParameterInfo
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.tensor_slice import TensorSlice


def row(name: str, shape: tuple[int, ...], **rest: Any) -> ParameterRow:
    """A matrix, drawn normally, unless `rest` says otherwise."""
    return ParameterRow(**{"name": name, "shape": shape, "part": "mlp", "matrix": True, "initial": "normal", **rest})


def whole_info(name: str, shape: tuple[int, ...], **rest: Any) -> ParameterInfo:
    """Of a parameter that a rank has alone."""
    return ParameterInfo(row(name, shape, **rest), TensorSlice.whole(shape))
