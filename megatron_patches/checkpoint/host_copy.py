"""A copy in the host's memory of what a rank writes to a checkpoint, so that training goes on while files are
written."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from megatron_patches.parallel.state_piece import StatePiece

ALIGNMENT = 64  # bytes; a piece of any type may start there


class HostCopy:
    """Memory reserved once, for pieces whose sizes never change; pinned where they are on a GPU.

    Reserving it at the start keeps the price out of the first save: fresh pages cost as much as the copy itself.
    """

    def __init__(self, pieces: Sequence[StatePiece]) -> None:
        self._positions: dict[tuple[str, str], tuple[int, int]] = {}
        position = 0
        for piece in pieces:
            self._positions[_key(piece)] = position, piece.tensor.nbytes
            position += -(-piece.tensor.nbytes // ALIGNMENT) * ALIGNMENT
        on_gpu = any(piece.tensor.is_cuda for piece in pieces)
        self._memory = torch.empty(position, dtype=torch.uint8, pin_memory=on_gpu).fill_(0)

    @property
    def bytes(self) -> int:
        """Memory that is reserved."""
        return self._memory.numel()

    @torch.no_grad()
    def take(self, pieces: Sequence[StatePiece]) -> list[StatePiece]:
        """The pieces as they are now; their tensors lie in the copy until the next `take`."""
        copies = [self._tensor_of(piece) for piece in pieces]
        if copies:
            torch._foreach_copy_(copies, [piece.tensor for piece in pieces], non_blocking=True)
        if self._memory.is_pinned():
            torch.cuda.current_stream().synchronize()
        return [replace(piece, tensor=copy) for piece, copy in zip(pieces, copies, strict=True)]

    def _tensor_of(self, piece: StatePiece) -> Tensor:
        position, size = self._positions[_key(piece)]
        assert size == piece.tensor.nbytes, f"{piece.kind} of {piece.name} has changed its size"
        return self._memory[position : position + size].view(piece.tensor.dtype)


def _key(piece: StatePiece) -> tuple[str, str]:
    return piece.name, piece.kind
