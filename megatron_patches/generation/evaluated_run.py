"""A run's configuration as its checkpoint is evaluated: on a layout of its own, at a length of its own. Torch-free."""

from collections.abc import Iterator

from megatron_patches.checkpoint.starting_point import TakenRows
from megatron_patches.errors import Refused, refuse
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout_checks import check_stages, check_tensor_parallel

_OPTIONS = {"parallel.tensor": "--tensor-parallel", "parallel.pipeline": "--pipeline-parallel"}


def laid_out(config: RunConfig, tensor: int, pipeline: int) -> RunConfig:
    """The run on so many tensor-parallel ranks and pipeline stages, which are planned as training plans them.

    Raises:
        TrainyardError: its matrices or its layers cannot be divided so.
    """
    sizes = {"tensor": tensor, "pipeline": pipeline, "sequence_parallel": False}
    shared = config.model_copy(update={"parallel": config.parallel.model_copy(update=sizes)})
    refuse(_layout_problems(shared))
    return shared


def _layout_problems(config: RunConfig) -> Iterator[str]:
    for problem in (*check_tensor_parallel(config), *check_stages(config)):
        text = problem.text
        for setting, option in _OPTIONS.items():
            text = text.replace(setting, option)
        yield text


def at_length(config: RunConfig, length: int | None) -> RunConfig:
    """The run with samples of this `data.sequence_length`; None leaves its own.

    Raises:
        Refused: the model knows no places beyond those that it was trained with, and these are more.
    """
    if length is None or length == config.data.sequence_length:
        return config
    if length < 1:
        raise Refused(f"length {length}: a model reads 1 token or more")
    settings = config.model_dump()
    settings["data"]["sequence_length"] = length
    other = RunConfig.model_validate(settings)  # a copy would keep what was computed from the length
    for before, after in zip(config.parameters, other.parameters, strict=True):
        if before.row_for_each == "positions" and after.shape[0] > before.shape[0]:
            raise Refused(
                f"length {length:,}: {config.name} has learned {before.name} for {before.shape[0]:,} places alone; ask "
                f"for at most {config.data.sequence_length:,} (rotary and ALiBi positions know no such bound)"
            )
    return other


def taken_rows(trained: RunConfig, evaluated: RunConfig) -> dict[str, TakenRows]:
    """Of tables with a row for each position, by name, those that a shorter length takes of the trained ones."""
    return {
        before.name: TakenRows(before.shape[0], ((0, after.shape[0]),))
        for before, after in zip(trained.parameters, evaluated.parameters, strict=True)
        if before.shape[0] != after.shape[0]
    }
