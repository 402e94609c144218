"""How many parameters a foreign checkpoint holds: whether it can be one of the run that it is adopted for."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError, safe_open

from megatron_patches.artefacts.foreign_formats.formats import ForeignCheckpoint
from megatron_patches.artefacts.foreign_formats.pickle_outline import read_outline
from megatron_patches.errors import Damaged, Missing
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.printable import printable, shortened

_LEAST, _MOST = 0.75, 2.0
"""of the run's count: a vocabulary without padding has fewer rows; ranks and stages keep copies of norms and of
embeddings, as much again in a model that is little more than its embedding"""
_MODEL_FILES = {
    "lightning": ("*.ckpt",),
    "deepspeed": ("layer_*-model_states.pt", "mp_rank_*_model_states.pt"),
    "megatron": ("model_optim_rng.pt", "model_rng.pt"),
    "transformers": ("*.safetensors", "pytorch_model*.bin"),
}
"""by format, files that hold the weights; of several patterns the first that any file has"""


def count_parameters_in(checkpoint: ForeignCheckpoint) -> int:
    """Elements of the model's tensors in all of its files.

    Raises:
        TrainyardError: a file cannot be looked into.
    """
    files = _model_files(checkpoint)
    if not files:
        raise Missing(f"{printable(checkpoint.path)} has no file of weights that is known")
    return sum(_elements(path) for path in files)


def misfit_of(checkpoint: ForeignCheckpoint, run: str, expected: int) -> str:
    """Says why a checkpoint's number of parameters does not fit a run; empty where it does.

    Raises:
        TrainyardError: a file cannot be looked into.
    """
    held = count_parameters_in(checkpoint)
    if _LEAST * expected <= held <= _MOST * expected:
        return ""
    return f"holds {held:,} parameters, {run} has {expected:,}: it is not of this run"


def _model_files(checkpoint: ForeignCheckpoint) -> list[Path]:
    for pattern in _MODEL_FILES[checkpoint.format]:
        if files := [path for path in checkpoint.files if fnmatch(path.name, pattern)]:
            return files
    return []


def _elements(path: Path) -> int:
    if path.suffix != ".safetensors":
        return read_outline(path).parameters
    with open_plain(path):  # what is no plain file is refused before the library waits for it
        pass
    try:
        return sum(_safetensors(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"{printable(path)} is no file of safetensors ({shortened(error, 80)})") from None


def _safetensors(path: Path) -> Iterator[int]:
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            product = 1
            for size in file.get_slice(name).get_shape():
                product *= size
            yield product
