"""A checkpoint of ours as whole tensors, without the ranks that wrote it or any others."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_tools.errors import TrainyardError
from megatron_patches.checkpoint.load import StoredPiece, StoredState
from megatron_patches.checkpoint.state_tensor import Reader, StateTensor, Stretch

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_tensors(folder: Path) -> list[StateTensor]:
    """All tensors of a checkpoint, by name and kind; only the files' headers are read.

    Raises:
        TrainyardError: a file is no safetensors file of a checkpoint.
    """
    try:
        pieces = pieces_of(StoredState(folder))
    except (SafetensorError, KeyError, TypeError) as error:
        raise TrainyardError(f"{folder} has a file that no checkpoint has ({error}); restore it from a copy") from error

    @lru_cache(maxsize=16)  # a file is read piece by piece, and its header is parsed when it is opened
    def opened(path: Path) -> Any:
        return safe_open(path, framework="pt")

    return [_tensor(name, kind, held, opened) for (name, kind), held in sorted(pieces.items())]


def pieces_of(state: StoredState) -> Mapping[tuple[str, str], Sequence[StoredPiece]]:
    """The stored pieces of each parameter and kind."""
    return state._pieces


def _tensor(name: str, kind: str, held: Sequence[StoredPiece], opened: Callable[[Path], Any]) -> StateTensor:
    stretches = tuple(Stretch(each.slice, each.start, each.elements, _reader(each, opened)) for each in held)
    dtype = _DTYPES[opened(held[0].file).get_slice(held[0].key).get_dtype()]
    return StateTensor(name, kind, held[0].slice.global_shape, dtype, stretches)


def _reader(piece: StoredPiece, opened: Callable[[Path], Any]) -> Reader:
    def read(first: int, last: int) -> Tensor:
        return opened(piece.file).get_slice(piece.key)[first:last]

    return read
