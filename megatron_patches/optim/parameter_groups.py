"""Groups of parameters that are stepped alike: the same weight decay, and the same rule where an optimizer has two."""

from collections.abc import Collection
from typing import Any

from torch import nn

from megatron_patches.optim.optimizer_config import AdafactorConfig, MuonConfig, OptimizerConfig
from megatron_patches.parameters.info import info_of
from megatron_patches.parameters.name_patterns import decay_by_name
from megatron_patches.parameters.row import ParameterRow


def parameter_groups(
    config: OptimizerConfig, parameters: dict[str, nn.Parameter], tied: Collection[str] = ()
) -> list[dict[str, Any]]:
    """One group for each decay and rule, in the order of their first parameters; frozen parameters are in none.

    `names` holds the parameters' canonical names, beside torch's `params`. Groups with `tied` parameters, which other
    pipeline stages hold too, follow each other as on all of these stages.
    """
    groups: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            row = info_of(parameter).row
            settings = {"weight_decay": _decay(config, row)} | _rule(config, row)
            group = groups.setdefault(tuple(settings.items()), {"params": [], "names": [], **settings})
            group["params"].append(parameter)
            group["names"].append(name)
    return _tied_in_order(list(groups.values()), tied)


def _tied_in_order(groups: list[dict[str, Any]], tied: Collection[str]) -> list[dict[str, Any]]:
    """ZeRO steps group by group, and an optimizer's stages may wait for each other's sums over a tied parameter."""
    first_tied = [min((name for name in group["names"] if name in tied), default=None) for group in groups]
    ordered = iter(sorted((name, index) for index, name in enumerate(first_tied) if name is not None))
    return [group if name is None else groups[next(ordered)[1]] for group, name in zip(groups, first_tied, strict=True)]


def _decay(config: OptimizerConfig, row: ParameterRow) -> float:
    """A pattern's decay; else matrices and tables decay, vectors (biases, norms) do not."""
    by_name = decay_by_name(config.weight_decay_by_name, row.name)
    if by_name is not None:
        return by_name
    return config.weight_decay if row.matrix else 0.0


def _rule(config: OptimizerConfig, row: ParameterRow) -> dict[str, bool]:
    if isinstance(config, AdafactorConfig):
        return {"factored": row.matrix}
    if isinstance(config, MuonConfig):
        return {"orthogonal": row.matrix and row.stack is not None}
    return {}
