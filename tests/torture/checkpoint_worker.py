"""One rank that loads, and then saves a state of which every number follows from the step: what is loaded can be
checked."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.state_piece import StatePiece

ROWS, COLUMNS, PARAMETERS = 6, 1000, 3  # a file of some pages; ranks share the rows
KINDS = ("weight", "exp_avg")


@dataclass(frozen=True)
class Trial:
    """What a rank is to do, and what is to go wrong for it."""

    checkpoints: str
    rules: dict[str, Any]
    steps: int
    """to go on for, each of them saved"""
    fault: str | None = None
    """disk full, rename fails, killed while deleting: injected in this process; others come from outside"""
    fault_rank: int = 0
    fault_after: int = 0
    """calls, or bytes, that go well before"""


@dataclass(frozen=True)
class Report:
    """What became of it."""

    loaded: int
    """step; 0 for none"""
    damaged: list[int]
    """steps whose checkpoints were reported as damaged"""
    saved: list[int]
    removed: int


def run_trial(trial: Trial) -> Report:
    """Load the newest whole checkpoint, check it, save the following steps."""
    import torch

    from megatron_patches.artefacts.folders import step_of
    from megatron_patches.artefacts.unfinished import remove_leftovers
    from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
    from megatron_patches.checkpoint.resume import load_newest_whole
    from megatron_patches.checkpoint.saver import SaveOrder, Saver
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    world = int(os.environ["WORLD_SIZE"])
    groups = start_process_groups(Layout(1, 1, world), torch.float32)
    folder = Path(trial.checkpoints)
    pieces = make_pieces(groups)
    damaged: list[int] = []
    if groups.rank == 0:
        remove_leftovers(folder)
        (folder.parent / "loading").touch()
    found = load_newest_whole(folder, pieces, groups, report=lambda path, _: damaged.append(step_of(path)))
    step = int(found.manifest.facts["step"]) if found else 0  # type: ignore[arg-type]
    check(pieces, step)
    saver = Saver(folder, CheckpointConfig(**trial.rules), groups, pieces)
    inject(trial, groups)
    saved: list[int] = []
    removed = 0
    try:
        for following in range(step + 1, step + 1 + trial.steps):
            fill(pieces, following)
            records = saver.finish()
            saver.begin(pieces, content_of(following), SaveOrder(("full",), reason_of(following)))
            fill(pieces, -following)  # training goes on: what is being written must not see it
            saved += [record.step for record in records]
            removed += sum(len(record.written.removed) for record in records)
            time.sleep(0.002)
        records = saver.finish()
        saved += [record.step for record in records]
        removed += sum(len(record.written.removed) for record in records)
    finally:
        saver.close()
    return Report(step, damaged, saved, removed)


def reason_of(step: int) -> str:
    return "ephemeral" if step % 3 else "interval"


def content_of(step: int):  # type: ignore[no-untyped-def]
    from megatron_patches.checkpoint.save import CheckpointContent

    facts = {"step": step, "reason": reason_of(step), "validation_loss": float(step % 5)}
    return CheckpointContent(step, "0001", facts, {"progress": {"step": step}}, "config: true\n", ())


def make_pieces(groups: ProcessGroups) -> list[StatePiece]:
    """Of each parameter every rank holds a stretch of a flat tensor, as under ZeRO 1; lengths are uneven."""
    import torch

    from megatron_patches.parallel.state_piece import StatePiece
    from megatron_patches.parameters.tensor_slice import TensorSlice

    world, rank, elements = groups.layout.world_size, groups.rank, ROWS * COLUMNS
    share = -(-elements // world) + 7
    start, stop = min(rank * share, elements), min((rank + 1) * share, elements)
    box = TensorSlice.whole((ROWS, COLUMNS))
    return [
        StatePiece(f"layers.{number}.weight", kind, box, start, torch.zeros(stop - start), written_here=True)
        for number in range(PARAMETERS)
        for kind in KINDS
    ]


def fill(pieces: list[StatePiece], step: int) -> None:
    for piece in pieces:
        piece.tensor.copy_(numbers_of(piece, step))


def numbers_of(piece: StatePiece, step: int) -> Tensor:
    """Each element is another, in every step, parameter and kind; all exact in fp32."""
    import torch

    offset = 7 * int(piece.name.split(".")[1]) + 3 * KINDS.index(piece.kind)
    places = torch.arange(piece.start, piece.start + piece.tensor.numel()).float()
    return places + 50_000 * (abs(step) % 300) * (1 if step > 0 else -1) + offset


def check(pieces: list[StatePiece], step: int) -> None:
    """Raise if what was loaded is not what that step had."""
    for piece in pieces:
        expected = numbers_of(piece, step) if step else piece.tensor * 0
        if not (piece.tensor == expected).all():
            raise AssertionError(f"SILENT LOSS: {piece.kind} of {piece.name} is not that of step {step}")


def inject(trial: Trial, groups: ProcessGroups) -> None:
    """Replace what is to fail on this rank."""
    if trial.fault is None or groups.rank != trial.fault_rank:
        return
    from megatron_patches.atomic_files import HashingWriter

    left = trial.fault_after
    if trial.fault == "disk full":
        write = HashingWriter.write

        def fill_up(self: HashingWriter, content: Any) -> None:
            nonlocal left
            left -= memoryview(content).nbytes
            if left < 0:
                write(self, memoryview(content).cast("B")[: memoryview(content).nbytes // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            write(self, content)

        HashingWriter.write = fill_up  # type: ignore[method-assign]
    elif trial.fault == "rename fails":
        rename = Path.rename

        def refuse(self: Path, target: Any) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
            return rename(self, target)

        Path.rename = refuse  # type: ignore[method-assign]
    else:
        assert trial.fault == "killed while deleting"
        remove = shutil.rmtree

        def die(path: Any, *arguments: Any, **options: Any) -> None:
            nonlocal left
            files = sorted(Path(f"/proc/self/fd/{options['dir_fd']}", path).glob("*"))
            if files and str(path).endswith(".deleting"):
                left -= 1
                if left < 0:
                    files[0].unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
            remove(path, *arguments, **options)

        shutil.rmtree = die  # type: ignore[assignment]


def describe(trial: Trial) -> str:
    """For the message of a trial that failed."""
    return json.dumps(asdict(trial))
