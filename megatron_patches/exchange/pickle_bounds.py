"""Files of torch.save stand for no more than they hold: no compressed member, no tensor larger than its storage."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable, shortened

LARGEST_PICKLE = 32 << 20
"""bytes of data.pkl, which holds names and shapes; that of a shard of a model of 176B parameters has less than 1 MB"""
MOST_OBJECTS = 5_000_000
"""objects once those that occur several times are written out; a shard of 176B parameters has some thousands"""
DEEPEST = 100


def refuse_inflated(path: Path) -> None:
    """Raise Refused if a zip file would become larger than it is; torch itself writes members as they are.

    Raises:
        zipfile.BadZipFile: its list of members is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [each.filename for each in members if each.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise Refused(
            f"{printable(path)} has compressed members ({shortened(packed[0], 60)}), which torch.save does not write "
            "and which could be of any size; load and save it with torch first"
        )
    whole, size = sum(each.file_size for each in members), path.stat().st_size
    if whole > size:
        raise Refused(f"{printable(path)} lists members of {whole:,} bytes in all and has {size:,}; it is not read")
    for each in members:
        if each.filename.endswith("data.pkl") and each.file_size > LARGEST_PICKLE:
            raise Refused(
                f"{printable(path)} has a {shortened(each.filename, 60)} of {each.file_size:,} bytes; at most "
                f"{LARGEST_PICKLE:,} are read. Save it without what is no tensor"
            )


def refuse_expanding(content: Any, shown: str) -> None:
    """Raise Refused if what was read is nested without end, or stands for more than its file holds.

    Args:
        shown: the file, for messages.
    """
    seen = 0
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_OBJECTS:
            raise Refused(
                f"{shown} holds objects within each other, more than {DEEPEST} deep or {MOST_OBJECTS:,} in all; it is "
                "not read"
            )
        if isinstance(value, Tensor):
            _refuse_odd_tensor(value, shown)
        else:
            waiting += ((inner, depth + 1) for inner in _parts(value))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    return vars(value).values() if hasattr(value, "__dict__") and not isinstance(value, type) else ()


def _refuse_odd_tensor(tensor: Tensor, shown: str) -> None:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_nested:
        raise Refused(f"{shown} holds a tensor that is sparse, quantized or without numbers; save it as a plain one")
    needed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if needed > held:
        raise Refused(
            f"{shown} holds a tensor of {shortened(tuple(tensor.shape), 60)}, {needed:,} bytes, in a storage of "
            f"{held:,}; save it as a contiguous one"
        )
