"""Writing safetensors tensor by tensor, hashed on the way; reading is the safetensors library's.

The library's own writer takes all tensors at once and does not hash. The format: 8 bytes little-endian length of the
header, a JSON header (dtype, shape, byte range of each tensor, `__metadata__` of texts), then the bytes.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.atomic_files import HashingWriter
from megatron_patches.parameters.torch_dtypes import STORED_NAMES


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> FileRecord:
    """Write one-dimensional tensors of any device; one at a time is copied to the host.

    Returns the file's record, its path relative to its folder. Raises OSError as writing does; no file is left then.
    """
    return stream_safetensors(path, tensors, tensors.values(), metadata)


def stream_safetensors(
    path: Path, announced: Mapping[str, Tensor], tensors: Iterable[Tensor], metadata: Mapping[str, str]
) -> FileRecord:
    """The same of tensors that are made one after the other while the file is written.

    `announced` says their types and sizes beforehand; its own may lie on the meta device.
    """
    with HashingWriter(path) as file:
        file.write(_header(announced, metadata))
        for tensor, expected in zip(tensors, announced.values(), strict=True):
            assert (tensor.dtype, tensor.numel()) == (expected.dtype, expected.numel())
            flat = tensor.detach().contiguous().view(-1)  # a dimension of 1 may keep another stride
            file.write(flat.view(torch.uint8).cpu().numpy().data)
    return FileRecord(path=path.name, size=file.size, sha256=file.sha256)


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": STORED_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # the format wants the bytes to start at a multiple of 8
    return len(text).to_bytes(8, "little") + text
