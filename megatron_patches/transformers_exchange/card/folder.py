"""A folder of transformers, read strictly: `config.json`, and the headers of its safetensors files. Torch-free.

Nothing in it is run: no pickle is opened, and a folder that needs code of its own is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from megatron_patches.checkpoint.files.safetensors_header import BadHeader, read_safetensors_header
from megatron_patches.dtypes import BYTES_OF_STORED
from megatron_patches.errors import Damaged, Missing, Refused, listed
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
"""ends of files of weights that are no safetensors"""
_WIDTHS = dict(BYTES_OF_STORED) | {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8,
    "U64": 8, "F64": 8,
}  # fmt: skip
"""bytes of a number; buffers may have types that no weights of ours have"""


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
    size: int
    """in bytes"""

    @property
    def told(self) -> str:
        """The tensor in a message."""
        return f"{shortened(self.name, 100)} ({self.file.name})"

    def read(self) -> Tensor:
        """The whole tensor in its own type and shape, on the CPU, in memory of its own.

        Raises:
            Refused: it is of a type that no weights of ours have.
            Damaged: the file is shorter than it was, or cannot be read.
        """
        import numpy as np
        import torch

        from megatron_patches.parameters.torch_dtypes import STORED

        if self.dtype not in STORED:
            raise Refused(f"{self.told} is of type {self.dtype}; weights are read of {', '.join(STORED)}")
        try:
            content = np.fromfile(self.file, np.uint8, self.size, offset=self.offset)
        except OSError as error:
            raise Damaged(f"{self.told} cannot be read: {error.strerror}") from None
        if len(content) != self.size:
            raise Damaged(f"{self.told} has {len(content):,} of {self.size:,} bytes: the file is shorter than it was")
        return torch.from_numpy(content).view(STORED[self.dtype]).view(self.shape)


@dataclass(frozen=True)
class TransformersFolder:
    """What a folder of transformers holds."""

    path: Path
    config: Mapping[str, JsonValue]
    """`config.json`"""
    tensors: Mapping[str, StoredTensor]
    """by their names in the files"""

    def by(self, current_name: Callable[[str], str]) -> TransformersFolder:
        """The same by the names that a format knows (`TransformersFormat.current_name`).

        Raises:
            Damaged: two tensors have one such name.
        """
        renamed: dict[str, StoredTensor] = {}
        for name, tensor in self.tensors.items():
            new = current_name(name)
            if new in renamed:
                raise Damaged(f"{renamed[new].told} and {tensor.told} in {printable(self.path)} mean the same weight")
            renamed[new] = tensor
        return replace(self, tensors=renamed)


def open_folder(path: Path) -> TransformersFolder:
    """Reads `config.json` and the header of each file: `model.safetensors`, or the shards that an index names.

    Raises:
        Missing: there is no such folder, or `config.json`, the weights or a shard is not in it.
        Refused: it needs code of its own (`auto_map`), or its weights are pickles alone.
        Damaged: a file is not what its header, the index or `config.json`'s format say; a tensor is named twice, is
            missing in its shard, or is not in the index. The file and the tensor are named.
    """
    if not is_folder(path):
        raise Missing(f"{printable(path)} is no folder; name one that holds a {CONFIG_FILE}")
    config = _config(path)
    names = names_in(path)
    if INDEX_FILE in names and WEIGHTS_FILE in names:
        raise Damaged(f"{printable(path)} has both {WEIGHTS_FILE} and {INDEX_FILE}; move away the one that is old")
    if INDEX_FILE in names:
        return TransformersFolder(path, config, _sharded(path))
    if WEIGHTS_FILE in names:
        return TransformersFolder(path, config, {each.name: each for each in _tensors(path / WEIGHTS_FILE)})
    raise _without_weights(path, names)


def _config(path: Path) -> dict[str, JsonValue]:
    config = parse_object(read_bounded(path / CONFIG_FILE), printable(path / CONFIG_FILE))
    if "auto_map" in config:
        raise Refused(
            f"{printable(path / CONFIG_FILE)} has auto_map: the model needs code of its own, and none from a folder is "
            "run. Take a model that transformers itself knows; where it knows this model_type, remove auto_map"
        )
    return config


def _without_weights(path: Path, names: Sequence[str]) -> Missing | Refused:
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        return Refused(
            f"{printable(path)} has no safetensors, and {shortened(pickles[0], 80)} is not opened, for it may run "
            "code; save the model again with transformers (save_pretrained), which writes safetensors"
        )
    return Missing(f"{printable(path)} has neither {WEIGHTS_FILE} nor {INDEX_FILE}; complete the folder")


def _sharded(path: Path) -> dict[str, StoredTensor]:
    """The tensors that an index names, each found in the shard that it names, and no other in any shard."""
    file_of = _index(path / INDEX_FILE)
    held = [each for name in sorted(set(file_of.values())) for each in _tensors(path / name)]
    found = {each.name: each for each in held}
    twice = [name for name, count in Counter(each.name for each in held).items() if count > 1]
    elsewhere = [each.told for each in held if file_of.get(each.name, each.file.name) != each.file.name]
    problems = [
        *(f"{shortened(name, 100)} is in two shards" for name in twice),
        *(f"{shortened(name, 100)} is not in {shortened(file, 60)}" for name, file in file_of.items()
          if name not in found),
        *(f"{told} is in another shard than the index says" for told in elsewhere),
        *(f"{each.told} is not in the index" for each in held if each.name not in file_of),
    ]  # fmt: skip
    if problems:
        raise Damaged(f"{printable(path)} does not hold what {INDEX_FILE} says; fetch it again:\n{listed(problems)}")
    return found


def _index(path: Path) -> dict[str, str]:
    """The name of each tensor's shard: a plain name, so that no index leads out of the folder."""
    shown = printable(path)
    file_of = parse_object(read_bounded(path), shown).get("weight_map")
    if not isinstance(file_of, dict) or not file_of:
        raise Damaged(f"{shown} has no weight_map that names a tensor")
    for tensor, file in file_of.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or Path(file).name != file:
            raise Damaged(f"{shown}: the file of {shortened(tensor, 100)} is '{shortened(file, 60)}', no shard's name")
    return file_of


def _tensors(path: Path) -> list[StoredTensor]:
    try:
        header = read_safetensors_header(path, _WIDTHS)
    except FileNotFoundError:
        if path.is_symlink():  # a cache of the hub whose blobs are not all there
            raise Missing(f"{printable(path)} is a link to a file that does not exist; fetch it again") from None
        raise Missing(f"{printable(path)} does not exist, though an index names it; complete the folder") from None
    except OSError as error:
        raise Damaged(f"{printable(path)} cannot be read: {error.strerror}") from None
    except BadHeader as error:
        raise Damaged(f"{printable(path)}: {error}; fetch or make it again") from None
    return [StoredTensor(each.key, path, each.dtype, each.shape, each.offset, each.size) for each in header.entries]
