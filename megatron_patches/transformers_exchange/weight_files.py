"""The files of weights: planned from shapes alone, then written with one parameter in memory at a time."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from megatron_patches.artefacts.manifest import FileRecord, record_file
from megatron_patches.atomic_files import write_atomically
from megatron_patches.checkpoint.files.safetensors_stream import stream_safetensors
from megatron_patches.models.interface.transformers_format import FilledTensor, TensorPair, TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import readable
from megatron_patches.transformers_exchange.card.folder import INDEX_FILE, WEIGHTS_FILE
from megatron_patches.transformers_exchange.card.source import Source


@dataclass(frozen=True)
class _Piece:
    """What is written in one go: the tensors that hold one parameter of ours, or a filled one."""

    announced: Mapping[str, Tensor]
    """on the meta device, by their names"""
    make: Callable[[], Sequence[Tensor]]
    """the tensors themselves, in this order"""

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.announced.values())


@dataclass(frozen=True)
class Shard:
    """One file of weights."""

    name: str
    pieces: tuple[_Piece, ...]

    @property
    def announced(self) -> dict[str, Tensor]:
        """Its tensors' types and shapes, in their order."""
        return {name: tensor for piece in self.pieces for name, tensor in piece.announced.items()}

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return sum(piece.bytes for piece in self.pieces)

    def tensors(self) -> Iterator[Tensor]:
        """Made while the file is written."""
        for piece in self.pieces:
            yield from piece.make()


def plan_shards(format: TransformersFormat, config: RunConfig, source: Source, largest: int) -> list[Shard]:
    """Files of at most `largest` bytes, in the order of the model's layers; a larger parameter has one to itself."""
    pieces = [_of_pair(pair, source) for pair in format.pairs(config.model, config.parameters)]
    pieces += [_of_filled(filled, source.dtype) for filled in format.filled(config.model)]
    groups: list[list[_Piece]] = [[]]
    for piece in pieces:
        if groups[-1] and sum(each.bytes for each in groups[-1]) + piece.bytes > largest:
            groups.append([])
        groups[-1].append(piece)
    return [Shard(_name(number, len(groups)), tuple(group)) for number, group in enumerate(groups, start=1)]


def _name(number: int, count: int) -> str:
    return WEIGHTS_FILE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _of_pair(pair: TensorPair, source: Source) -> _Piece:
    stored = source.weights[pair.ours]
    parts = pair.split(torch.empty(stored.shape, dtype=stored.dtype, device="meta"))
    return _Piece(dict(zip(pair.theirs, parts, strict=True)), partial(_parts, pair, source))


def _parts(pair: TensorPair, source: Source) -> Sequence[Tensor]:
    return pair.split(source.read(pair.ours))


def _of_filled(filled: FilledTensor, dtype: torch.dtype) -> _Piece:
    announced = torch.empty(filled.shape, dtype=dtype, device="meta")
    return _Piece({filled.name: announced}, lambda: [torch.full(filled.shape, filled.value, dtype=dtype)])


def write_shards(folder: Path, shards: Sequence[Shard], on: Callable[[str], None]) -> list[FileRecord]:
    """Writes the files, and where there are several their index; what `on` hears names each before it is written."""
    records = []
    for shard in shards:
        on(f"{shard.name}, {readable(shard.bytes)}")
        records.append(stream_safetensors(folder / shard.name, shard.announced, shard.tensors(), {"format": "pt"}))
    if len(shards) > 1:
        write_atomically(folder / INDEX_FILE, _index(shards))
        records.append(record_file(folder / INDEX_FILE, folder))
    return records


def _index(shards: Sequence[Shard]) -> bytes:
    names = {name: shard.name for shard in shards for name in shard.announced}
    content = {"metadata": {"total_size": sum(shard.bytes for shard in shards)}, "weight_map": names}
    return (json.dumps(content, indent=2) + "\n").encode()
