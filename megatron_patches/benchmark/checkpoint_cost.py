"""What a checkpoint costs: how long training waits beside torch.save, how fast files are written beside dd and
sha256sum."""

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from megatron_patches.checkpoint.host_copy import HostCopy
from megatron_patches.checkpoint.save import write_pieces
from megatron_patches.hardware.machines import cpu_name
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.tensor_slice import TensorSlice

TENSOR_BYTES = 25_000_000  # as a matrix of a model of some hundred million parameters


@dataclass(frozen=True)
class CheckpointCost:
    """Seconds, one of each kind a round, the kinds in turns."""

    bytes: int
    stall: list[float]
    """copying the state to the host's memory"""
    torch_save: list[float]
    """the same state by torch.save, without fsync"""
    write: list[float]
    """writing the copy: hashed, with fsync"""
    dd_and_sha256: list[float]
    """dd with fsync of the same bytes, then sha256sum of them"""


def measure_cost(folder: Path, gigabytes: float, repeats: int) -> CheckpointCost:
    """Measure in a temporary folder within `folder`; a state of fp32 numbers in the host's memory."""
    count = max(1, round(gigabytes * 1e9 / TENSOR_BYTES))
    pieces = [_piece(number) for number in range(count)]
    copy = HostCopy(pieces)
    stall, saved, written, copied = [], [], [], []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        ours, theirs, plain = (Path(place) / name for name in ("ours.safetensors", "dd", "torch.pt"))
        state = {piece.name: piece.tensor for piece in pieces}
        for _ in range(repeats):
            stall.append(_seconds(lambda: copy.take(pieces)))
            saved.append(_seconds(lambda: torch.save(state, plain)))
            copies = copy.take(pieces)
            written.append(_seconds(lambda: write_pieces(ours, copies)))  # noqa: B023  it runs at once
            copied.append(_seconds(lambda: _dd_and_sha256(ours, theirs)))
            for path in (plain, theirs, ours):
                path.unlink()
    size = sum(piece.tensor.nbytes for piece in pieces)
    return CheckpointCost(size, stall, saved, written, copied)


def _piece(number: int) -> StatePiece:
    elements = TENSOR_BYTES // 4
    box = TensorSlice.whole((elements,))
    return StatePiece(f"tensor{number}", "weight", box, 0, torch.randn(elements), written_here=True)


def _seconds(action: Callable[[], object]) -> float:
    started = perf_counter()
    action()
    return perf_counter() - started


def _dd_and_sha256(source: Path, target: Path) -> None:
    dd = ["dd", f"if={source}", f"of={target}", "bs=16M", "conv=fsync", "status=none"]
    subprocess.run(dd, check=True)
    subprocess.run(["sha256sum", str(target)], check=True, stdout=subprocess.DEVNULL)


def describe_cost(cost: CheckpointCost) -> str:
    """Medians, and how they compare."""
    stall, saved, written, copied = map(median, (cost.stall, cost.torch_save, cost.write, cost.dd_and_sha256))
    speed = cost.bytes / 1e9
    return "\n".join(
        [
            f"{cost.bytes:,} bytes, {len(cost.stall)} rounds, medians; {cpu_name()}, torch {torch.__version__}",
            f"training waits   {stall:8.3f} s, {stall / saved:.3f} of torch.save's {saved:.3f} s",
            f"writing          {written:8.3f} s, {speed / written:.2f} GB/s, hashed and on the disk",
            f"dd and sha256sum {copied:8.3f} s, {speed / copied:.2f} GB/s; writing is at {copied / written:.2f} of it",
        ]
    )
