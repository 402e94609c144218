"""Reads what wandb writes offline: records of its own protocol in the blocks of a LevelDB log."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
FILE_HEADER, CHUNK_HEADER = 7, 7
LAST = (1, 4)
"""kinds of chunks that end a record: whole, last"""


def records(path: Path) -> Iterator[Any]:
    """wandb's `Record` messages in the order in which they were written."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data.startswith(b":W&B")
    position, record = FILE_HEADER, b""
    while position + CHUNK_HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < CHUNK_HEADER:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        position += CHUNK_HEADER
        record += data[position : position + size]
        position += size
        if kind in LAST:
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def history(path: Path) -> dict[int, dict[str, float]]:
    """What is shown of each step; raises AssertionError where steps do not grow, which W&B would leave out."""
    found: dict[int, dict[str, float]] = {}
    for record in records(path):
        if record.WhichOneof("record_type") != "history":
            continue
        step = record.history.step.num
        assert not found or step > max(found), f"step {step} after {max(found)}"
        items = ((item.key or "/".join(item.nested_key), json.loads(item.value_json)) for item in record.history.item)
        found[step] = {key: value for key, value in items if not key.startswith("_")}
    return found
