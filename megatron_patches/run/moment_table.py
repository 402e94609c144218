"""Which moments a run's optimizer keeps of each parameter, from the configuration alone. Torch-free.

Tests hold it to what the engines save.
"""

from math import prod

from megatron_patches.optim.optimizer_config import AdafactorConfig, AdamWConfig, LionConfig, MuonConfig, SGDConfig
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.run.config import RunConfig

_ADAM = ("exp_avg", "exp_avg_sq")


def moment_shapes(config: RunConfig, row: ParameterRow) -> dict[str, tuple[int, ...]]:
    """Kinds of a trained parameter's moments, all fp32, and their shapes."""
    optimizer = config.optimizer
    kinds: tuple[str, ...]
    if isinstance(optimizer, AdafactorConfig):
        return _adafactor(row)
    if isinstance(optimizer, AdamWConfig):
        kinds = _ADAM
    elif isinstance(optimizer, SGDConfig):
        kinds = ("momentum_buffer",) if optimizer.momentum else ()
    elif isinstance(optimizer, LionConfig):
        kinds = ("exp_avg",)
    else:
        assert isinstance(optimizer, MuonConfig)
        kinds = ("momentum_buffer",) if row.matrix and row.stack else _ADAM
    return dict.fromkeys(kinds, row.shape)


def moment_bytes(config: RunConfig, row: ParameterRow) -> int:
    """Bytes of a trained parameter's moments."""
    return 4 * sum(map(prod, moment_shapes(config, row).values()))


def _adafactor(row: ParameterRow) -> dict[str, tuple[int, ...]]:
    """A number for each row and one for each column, of every matrix that is fused with others."""
    if not row.matrix:
        return {"second_moment": row.shape}
    *leading, columns = row.shape
    count = 1 if row.fused is None else leading[row.fused]
    return {"second_moment_rows": (prod(leading),), "second_moment_columns": (count, columns)}
