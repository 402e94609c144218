"""Which moments a run's optimizer keeps of a parameter, how they begin, and whether they go on as they were."""

from collections.abc import Mapping
from math import isclose, prod
from typing import Any

import torch
from torch import Tensor

from megatron_patches.checkpoint.state_tensor import StateTensor, Stretch
from megatron_patches.config import RunConfig
from megatron_patches.configuration.name_patterns import is_matrix_row
from megatron_patches.models.parameter_table import ParameterRow
from megatron_patches.optim.optimizer_config import AdafactorConfig, AdamWConfig, LionConfig, MuonConfig, SGDConfig
from megatron_patches.parallel.tensor_slice import TensorSlice

_ADAM = ("exp_avg", "exp_avg_sq")


def moment_shapes(config: RunConfig, row: ParameterRow) -> dict[str, tuple[int, ...]]:
    """Kinds of a trained parameter's moments and their shapes; a test holds it to what the engines save."""
    optimizer = config.optimizer
    kinds: tuple[str, ...]
    if isinstance(optimizer, AdafactorConfig):
        return _adafactor(config, row)
    if isinstance(optimizer, AdamWConfig):
        kinds = _ADAM
    elif isinstance(optimizer, SGDConfig):
        kinds = ("momentum_buffer",) if optimizer.momentum else ()
    elif isinstance(optimizer, LionConfig):
        kinds = ("exp_avg",)
    else:
        assert isinstance(optimizer, MuonConfig)
        kinds = ("momentum_buffer",) if is_matrix_row(row) and row.name.startswith("layers.") else _ADAM
    return dict.fromkeys(kinds, row.shape)


def _adafactor(config: RunConfig, row: ParameterRow) -> dict[str, tuple[int, ...]]:
    """A number for each row and one for each column, of every matrix that is fused with others."""
    if not is_matrix_row(row):
        return {"second_moment": row.shape}
    *leading, columns = row.shape
    leaf = row.name.removesuffix(".linear.weight").rpartition(".")[2]
    stack = {"query_key_value": 1, "key_value": 1, "up": 0 if config.model.gated else None}.get(leaf)
    count = 1 if stack is None else leading[stack]
    return {"second_moment_rows": (prod(leading),), "second_moment_columns": (count, columns)}


def optimizer_differences(config: RunConfig, theirs: Mapping[str, Any], step: int) -> list[str]:
    """How the run's next updates differ from those the moments come from; where they do not say, nothing does."""
    optimizer = config.optimizer
    ours: dict[str, Any] = {"lr": config.learning_rate(step)}
    if isinstance(optimizer, AdamWConfig):
        ours |= {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.epsilon}
    return [
        f"their {key} was {theirs[key]}, the run's is {wanted} at step {step}"
        for key, wanted in ours.items()
        if key in theirs and not _is_close(theirs[key], wanted)
    ]


def _is_close(theirs: Any, ours: Any) -> bool:
    pairs = zip(theirs, ours, strict=True) if isinstance(ours, tuple) else [(theirs, ours)]
    return all(isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in pairs)


def zeros(name: str, kind: str, shape: tuple[int, ...]) -> StateTensor:
    """A moment before the first update, fp32."""

    def read(first: int, last: int) -> Tensor:
        return torch.zeros(last - first)

    return StateTensor(name, kind, shape, torch.float32, (Stretch(TensorSlice.whole(shape), 0, prod(shape), read),))
