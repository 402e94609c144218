"""Which numbers of a checkpoint an export holds: its weights as they were trained with, or their fp32 masters."""

from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkpoint.files.state_tensor import StateTensor
from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors
from megatron_patches.errors import Damaged, Refused, listed
from megatron_patches.foreign.printable import printable
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.source import Source

Weights = Literal["stored", "masters"]


def source_of(folder: Path, manifest: Manifest, config: RunConfig, weights: Weights) -> Source:
    """The tensors of an export by canonical name; only headers are read.

    Raises:
        Refused: there are no masters, or tensors are of several types, of which a `config.json` can name one.
        Damaged: the parameters are not those of the run's configuration.
    """
    tensors = stored_tensors(folder, manifest)
    kind = "master" if weights == "masters" else "weight"
    found = {tensor.name: tensor for tensor in tensors if tensor.kind == kind}
    if weights == "masters" and not found:
        raise Refused(_why_no_masters(folder, config))
    _compare_with_rows(found, folder, config)
    if len(types := sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.values()})) > 1:
        raise Refused(f"{printable(folder)}: its weights are of the types {', '.join(types)}; an export has one type")
    return Source(manifest.id, found)


def _why_no_masters(folder: Path, config: RunConfig) -> str:
    if config.training.precision == "fp32":
        return f"{printable(folder)}: its weights are fp32, and so their own masters; take --weights stored"
    return (
        f"{printable(folder)} holds no fp32 masters: it is one of weights alone. Name the full checkpoint of a step "
        "(RUN@STEP), or take --weights stored"
    )


def _compare_with_rows(found: dict[str, StateTensor], folder: Path, config: RunConfig) -> None:
    rows = {row.name: tuple(row.shape) for row in config.parameters}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    differing = [name for name in sorted(rows.keys() | shapes.keys()) if rows.get(name) != shapes.get(name)]
    if differing:
        told = listed(f"{name}: {_shape(shapes.get(name))}, expected {_shape(rows.get(name))}" for name in differing)
        raise Damaged(f"{printable(folder)} does not hold the parameters of its config.yaml:\n{told}")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
