"""In which order parts and documents are read: pure functions of (seed, source, epoch, block)."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.permutation import permute
from data_tools.streams.settings import StreamSettings

_PARTS, _DOCUMENTS = 1, 2
"""what is permuted; no two permutations have one key"""


def order_of_parts(settings: StreamSettings, parts: int, epoch: int) -> list[int]:
    """Places, in the given order, of the parts as an epoch reads them."""
    if settings.shuffle_documents == 1:
        return list(range(parts))
    return permute(np.arange(parts), parts, (settings.seed, _number(settings.source), _PARTS, epoch)).tolist()


def order_of_documents(settings: StreamSettings, documents: int, epoch: int, block: int) -> NDArray[np.int64] | None:
    """Numbers, as they are read, of the documents of a block, int64 [documents]; None where their order is kept."""
    if settings.shuffle_documents == 1:
        return None
    key = (settings.seed, _number(settings.source), _DOCUMENTS, epoch, block)
    return permute(np.arange(documents), documents, key)


def _number(source: str) -> int:
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "little")
