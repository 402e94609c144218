"""Which box of a parameter each tensor-parallel rank holds, from the configuration alone.

It says what the layers say of themselves (`ParameterInfo.slice`); a test holds it to them. So a checkpoint of another
layout is read without building that layout.
"""

from math import prod

from data_tools.errors import TrainyardError
from megatron_patches.configuration.checks import check_run
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import ParameterRow
from megatron_patches.parallel.tensor_slice import TensorSlice
from megatron_patches.run_config import RunConfig


def check_tensor_parallel(config: RunConfig, tensor: int) -> None:
    """Raise TrainyardError if the model cannot be shared by so many tensor-parallel ranks: theirs is another one."""
    parallel = config.parallel.model_copy(update={"tensor": tensor, "sequence_parallel": False})
    problems = [
        problem.text
        for problem in check_run(config.model_copy(update={"parallel": parallel}))
        if problem.key == "parallel.tensor"
    ]
    if problems:
        raise TrainyardError(
            f"the checkpoint's matrices are cut for {tensor} tensor-parallel ranks, which {config.name} cannot be: "
            f"{'; '.join(problems)}"
        )


def slice_of(row: ParameterRow, model: ModelConfig, part: int, parts: int) -> TensorSlice:
    """The box of rank `part` of `parts`; everything where each holds a copy."""
    dimension = cut_dimension(row, model, parts)
    if dimension is None:
        return TensorSlice.whole(row.shape)
    return TensorSlice.cut(row.shape, dimension, part, parts)


def cut_dimension(row: ParameterRow, model: ModelConfig, parts: int) -> int | None:
    """The dimension that tensor-parallel ranks share, None where each holds everything."""
    layer, _, leaf = row.name.removesuffix(".linear.weight").removesuffix(".linear.bias").rpartition(".")
    if row.part in ("token_embedding", "head"):
        return 0
    if leaf in ("query_key_value", "query"):
        return 0
    if leaf == "key_value":
        return 0 if model.groups >= parts else None
    if leaf == "up" and layer.endswith(".mlp"):
        return 1 if model.gated else 0
    if leaf in ("output", "down") and row.name.endswith(".weight"):
        return 1
    return None


def matrix_shape(row: ParameterRow, box: TensorSlice) -> tuple[int, ...]:
    """The shape that a rank's own tensor of this box has in a module: matrices have two dimensions, vectors one."""
    shape = box.shape
    if row.name.endswith(".bias") or len(row.shape) == 1:
        return (prod(shape),)
    return (prod(shape[:-1]), shape[-1])
