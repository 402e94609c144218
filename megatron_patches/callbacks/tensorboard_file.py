"""A file of scalars that TensorBoard reads, without TensorBoard's own writer.

`torch.utils.tensorboard` imports what it could draw pictures, audio and histograms with, and boto3 where that is
installed: 0.4 s of CPU time before the first step, where the messages alone (`event_pb2`) take 0.03 s.
Format: TFRecord (tensorboard/summary/writer/record_writer.py) of `Event`s (tensorboard/compat/proto/event.proto).
"""

import os
import socket
import struct
import time
from functools import cache
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary


class EventFile:
    """Opened at once; what is written is in the file when `flush` returns."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """What earlier files of the folder have from `first_step` on is hidden."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file: BinaryIO = (folder / name).open("wb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_step, session_log=start))
        self.flush()

    def scalar(self, name: str, value: float, step: int) -> None:
        """One number of a curve."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Show what was written to those who read the file."""
        self._file.flush()

    def close(self) -> None:
        """Write the rest."""
        self._file.close()

    def _write(self, event: Event) -> None:
        data = event.SerializeToString()
        header = struct.pack("<Q", len(data))
        self._file.write(header + struct.pack("<I", masked_crc32c(header)))
        self._file.write(data + struct.pack("<I", masked_crc32c(data)))


def masked_crc32c(data: bytes) -> int:
    """The checksum of a TFRecord: CRC-32C (Castagnoli), rotated by 15 bits, plus a constant; 32 bits."""
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
