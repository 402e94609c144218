"""A folder of transformers, read strictly: `config.json`, and the headers of its safetensors files. Torch-free.

Nothing in it is run: no pickle is opened, and a folder that needs code of its own is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file; its bytes are read on demand."""

    name: str
    file: Path
    dtype: str
    """as safetensors names it: F32, BF16, F16, or another that `read` refuses"""
    shape: tuple[int, ...]
    offset: int
    """of its first byte in the file"""

    def read(self) -> Tensor:
        """The whole tensor in its own type and shape, on the CPU, in memory of its own.

        Raises:
            Refused: it is of a type that no weights of ours have.
            Damaged: the file is shorter than it was.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TransformersFolder:
    """What a folder of transformers holds."""

    path: Path
    config: Mapping[str, JsonValue]
    """`config.json`"""
    tensors: Mapping[str, StoredTensor]
    """by their names in the files"""


def open_folder(path: Path) -> TransformersFolder:
    """Reads `config.json` and the header of each file: `model.safetensors`, or the shards that an index names.

    Raises:
        Missing: there is no such folder, or `config.json`, the weights or a shard is not in it.
        Refused: it needs code of its own (`auto_map`), or its weights are pickles alone.
        Damaged: a file is not what its header, the index or `config.json`'s format say; a tensor is named twice, is
            missing in its shard, or is not in the index. The file and the tensor are named.
    """
    raise NotImplementedError
