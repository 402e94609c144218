"""A checkpoint of ours as whole tensors, without the ranks that wrote it or any others."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkpoint.files.safetensors_header import BadHeader
from megatron_patches.checkpoint.files.state_tensor import Reader, StateTensor, Stretch
from megatron_patches.checkpoint.files.stored_files import StoredPiece, read_header
from megatron_patches.checkpoint.load import FileReader, state_files
from megatron_patches.dtypes import BYTES_OF_STORED
from megatron_patches.errors import Damaged
from megatron_patches.parameters.torch_dtypes import STORED


def stored_tensors(folder: Path, manifest: Manifest) -> list[StateTensor]:
    """All tensors of a checkpoint, by name and kind; only the files' headers are read.

    Raises:
        Damaged: a file is not what a checkpoint has.
    """
    held: dict[tuple[str, str], list[StoredPiece]] = defaultdict(list)
    for file in state_files(manifest):
        try:
            for piece in read_header(folder / file):
                held[piece.name, piece.kind].append(piece)
        except (BadHeader, OSError) as error:
            raise Damaged(f"{folder / file}: {error}; restore it from a copy") from None
    return [_tensor(folder, pieces) for _, pieces in sorted(held.items())]


def _tensor(folder: Path, pieces: Sequence[StoredPiece]) -> StateTensor:
    first = pieces[0]
    stretches = tuple(Stretch(each.slice, each.start, each.elements, _reader(folder, each)) for each in pieces)
    return StateTensor(first.name, first.kind, first.slice.global_shape, STORED[first.dtype], stretches)


def _reader(folder: Path, piece: StoredPiece) -> Reader:
    width = BYTES_OF_STORED[piece.dtype]

    def read(first: int, last: int) -> Tensor:
        with FileReader(folder / piece.file) as file:
            content = file.read(piece.offset + first * width, (last - first) * width)
        return torch.from_numpy(content).view(STORED[piece.dtype])

    return read
